#include "server/models/fla_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr double kMaxTheta = 1e12;

absl::StatusOr<FlaAttentionConfig> ReadOne(const ConfigReader& config, int64_t hidden_size) {
  FlaAttentionConfig attention;
  GroupedQueryConfig& heads = attention.heads;
  heads.hidden_size = hidden_size;
  ESS_ASSIGN_OR_RETURN(heads.head_count, config.Size("num_heads", std::nullopt));
  ESS_ASSIGN_OR_RETURN(heads.key_value_head_count, config.Size("num_kv_heads", heads.head_count));
  if (hidden_size % (2 * heads.head_count) != 0) {
    return ConfigContradiction(fmt::format("hidden_size is {}, not an even multiple of {} = {}",
                                           hidden_size, config.Name("num_heads"),
                                           heads.head_count));
  }
  if (heads.head_count % heads.key_value_head_count != 0) {
    return ConfigContradiction(
        fmt::format("{} is {}, not a multiple of {} = {}", config.Name("num_heads"),
                    heads.head_count, config.Name("num_kv_heads"), heads.key_value_head_count));
  }
  heads.head_dim = hidden_size / heads.head_count;
  heads.scale = 1 / std::sqrt(static_cast<double>(heads.head_dim));
  ESS_ASSIGN_OR_RETURN(heads.bias, config.Bool("qkv_bias", false));
  if (config.Has("window_size")) {
    ESS_ASSIGN_OR_RETURN(heads.window, config.Size("window_size", std::nullopt));
  }
  attention.rotary.head_dim = heads.head_dim;
  ESS_ASSIGN_OR_RETURN(attention.rotary.theta, config.Number("rope_theta", 10000, 1, kMaxTheta));
  return attention;
}

class FlaAttention final : public SequenceMixer {
 public:
  FlaAttention(const FlaAttentionConfig& config, std::unique_ptr<AttentionLayer> attention,
               Linear output)
      : config_(config), attention_(std::move(attention)), output_(std::move(output)) {}

  Mixer Describe() const override {
    const GroupedQueryConfig& heads = config_.heads;
    return AttentionMixers({heads.window}, heads.head_count, heads.head_dim).front();
  }

  // Layers may rotate by angles of their own, so the model has none for all.
  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    ESS_ASSIGN_OR_RETURN(
        const at::Tensor mixed,
        attention_->Attend(x, MakeRotaryTable(config_.rotary, x.size(0), x), mixer, pass));
    return mixed.defined() ? output_(mixed) : mixed;
  }

 private:
  const FlaAttentionConfig config_;
  const std::unique_ptr<AttentionLayer> attention_;
  const Linear output_;
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
  ESS_ASSIGN_OR_RETURN(auto attention, TakeGroupedQueryAttention(tensors, prefix, config.heads));
  const int64_t width = config.heads.hidden_size;
  ESS_ASSIGN_OR_RETURN(Linear output,
                       TakeLinear(tensors, prefix + "o_proj", width, width, /*bias=*/false));
  return std::make_unique<FlaAttention>(config, std::move(attention), std::move(output));
}

}  // namespace ess::models
