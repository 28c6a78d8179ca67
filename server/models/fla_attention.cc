#include "server/models/fla_attention.h"

#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

constexpr double kMaxTheta = 1e12;

absl::StatusOr<AttentionMixerConfig> ReadOne(const ConfigReader& config, int64_t hidden_size) {
  AttentionMixerConfig attention;
  GroupedQueryConfig& heads = attention.heads;
  heads.hidden_size = hidden_size;
  ESS_ASSIGN_OR_RETURN(heads.head_count, config.Size("num_heads", std::nullopt));
  ESS_ASSIGN_OR_RETURN(heads.key_value_head_count, config.Size("num_kv_heads", heads.head_count));
  if (hidden_size % (2 * heads.head_count) != 0) {
    return config.Contradiction(fmt::format("hidden_size is {}, not an even multiple of {} = {}",
                                            hidden_size, config.Name("num_heads"),
                                            heads.head_count));
  }
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_heads", heads.head_count, "num_kv_heads",
                                           heads.key_value_head_count));
  heads.head_dim = hidden_size / heads.head_count;
  heads.scale = 1 / std::sqrt(static_cast<double>(heads.head_dim));
  ESS_ASSIGN_OR_RETURN(heads.bias, config.Bool("qkv_bias", false));
  if (config.Has("window_size")) {
    ESS_ASSIGN_OR_RETURN(heads.window, config.Size("window_size", std::nullopt));
  }
  RotaryScaling& rotary = attention.rotary.emplace();
  rotary.head_dim = heads.head_dim;
  ESS_ASSIGN_OR_RETURN(rotary.theta, config.Number("rope_theta", 10000, 1, kMaxTheta));
  return attention;
}

}  // namespace

absl::StatusOr<std::vector<std::optional<AttentionMixerConfig>>> ReadFlaAttention(
    const ConfigReader& config, int64_t layer_count, int64_t hidden_size) {
  std::vector<std::optional<AttentionMixerConfig>> by_layer(static_cast<size_t>(layer_count));
  ESS_ASSIGN_OR_RETURN(const std::vector<ConfigReader> listed, config.Objects("attn"));
  for (const ConfigReader& attn : listed) {
    ESS_ASSIGN_OR_RETURN(const AttentionMixerConfig attention, ReadOne(attn, hidden_size));
    ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> layers, attn.Indices("layers", layer_count));
    for (const int64_t layer : layers) {
      std::optional<AttentionMixerConfig>& assigned = by_layer[static_cast<size_t>(layer)];
      if (assigned.has_value()) {
        return attn.Contradiction(
            fmt::format("{} lists layer {} a second time", attn.Name("layers"), layer));
      }
      assigned = attention;
    }
  }
  return by_layer;
}

}  // namespace ess::models
