#include "server/models/fla_attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr double kMaxTheta = 1e12;

absl::StatusOr<FlaAttentionConfig> ReadOne(const ConfigReader& config, int64_t hidden_size) {
  FlaAttentionConfig attention{.hidden_size = hidden_size};
  ESS_ASSIGN_OR_RETURN(attention.head_count, config.Size("num_heads", std::nullopt));
  ESS_ASSIGN_OR_RETURN(attention.key_value_head_count,
                       config.Size("num_kv_heads", attention.head_count));
  if (hidden_size % (2 * attention.head_count) != 0) {
    return ConfigContradiction(fmt::format("hidden_size is {}, not an even multiple of {} = {}",
                                           hidden_size, config.Name("num_heads"),
                                           attention.head_count));
  }
  if (attention.head_count % attention.key_value_head_count != 0) {
    return ConfigContradiction(fmt::format(
        "{} is {}, not a multiple of {} = {}", config.Name("num_heads"), attention.head_count,
        config.Name("num_kv_heads"), attention.key_value_head_count));
  }
  attention.head_dim = hidden_size / attention.head_count;
  ESS_ASSIGN_OR_RETURN(attention.query_key_value_bias, config.Bool("qkv_bias", false));
  if (config.Has("window_size")) {
    ESS_ASSIGN_OR_RETURN(attention.window, config.Size("window_size", std::nullopt));
  }
  attention.rotary.head_dim = attention.head_dim;
  ESS_ASSIGN_OR_RETURN(attention.rotary.theta, config.Number("rope_theta", 10000, 1, kMaxTheta));
  return attention;
}

class FlaAttention final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const FlaAttentionConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<FlaAttention>();
    mixer->config_ = config;
    const int64_t width = config.hidden_size;
    const int64_t shared = config.key_value_head_count * config.head_dim;
    const bool bias = config.query_key_value_bias;
    ESS_ASSIGN_OR_RETURN(mixer->query_, TakeLinear(tensors, prefix + "q_proj", width, width, bias));
    ESS_ASSIGN_OR_RETURN(mixer->key_, TakeLinear(tensors, prefix + "k_proj", shared, width, bias));
    ESS_ASSIGN_OR_RETURN(mixer->value_,
                         TakeLinear(tensors, prefix + "v_proj", shared, width, bias));
    ESS_ASSIGN_OR_RETURN(mixer->output_,
                         TakeLinear(tensors, prefix + "o_proj", width, width, /*bias=*/false));
    return mixer;
  }

  Mixer Describe() const override {
    return AttentionMixers({config_.window}, config_.head_count, config_.head_dim).front();
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    const RotaryTable rotary = MakeRotaryTable(config_.rotary, x.size(0), x);
    const auto heads = [&](const Linear& projection) {  // [L, D] => [L, heads, d]
      return projection(x).view({x.size(0), -1, config_.head_dim});
    };
    const AttentionInputs inputs = {.queries = RotateHeads(heads(query_), rotary),
                                    .keys = RotateHeads(heads(key_), rotary),
                                    .values = heads(value_).transpose(0, 1),
                                    .scale = 1 / std::sqrt(static_cast<double>(config_.head_dim)),
                                    .window = config_.window};
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, CausalAttention(inputs, mixer, pass));
    return mixed.defined() ? output_(mixed) : mixed;
  }

 private:
  FlaAttentionConfig config_;
  Linear query_, key_, value_, output_;
};

}  // namespace

absl::StatusOr<std::vector<std::optional<FlaAttentionConfig>>> ReadFlaAttention(
    const ConfigReader& config, int64_t layer_count, int64_t hidden_size) {
  std::vector<std::optional<FlaAttentionConfig>> by_layer(static_cast<size_t>(layer_count));
  ESS_ASSIGN_OR_RETURN(const std::vector<ConfigReader> listed, config.Objects("attn"));
  for (const ConfigReader& attn : listed) {
    ESS_ASSIGN_OR_RETURN(const FlaAttentionConfig attention, ReadOne(attn, hidden_size));
    ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> layers, attn.Indices("layers", layer_count));
    for (const int64_t layer : layers) {
      std::optional<FlaAttentionConfig>& assigned = by_layer[static_cast<size_t>(layer)];
      if (assigned.has_value()) {
        return ConfigContradiction(
            fmt::format("{} lists layer {} a second time", attn.Name("layers"), layer));
      }
      assigned = attention;
    }
  }
  return by_layer;
}

absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeFlaAttention(TensorSource& tensors,
                                                                const FlaAttentionConfig& config,
                                                                const std::string& prefix) {
  return FlaAttention::Take(tensors, config, prefix);
}

}  // namespace ess::models
