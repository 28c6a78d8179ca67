#include "server/models/layers/grouped_query_attention.h"

#include <ATen/ATen.h>

#include <vector>

#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/linear.h"

namespace ess::models {
namespace {

class GroupedQueryAttention final : public AttentionLayer {
 public:
  explicit GroupedQueryAttention(const GroupedQueryConfig& config) : config_(config) {}

  absl::Status Take(TensorSource& source, const std::string& module) {
    const int64_t query_width = config_.head_count * config_.head_dim;
    const int64_t key_width = config_.key_value_head_count * config_.head_dim;
    const auto take = [&](const char* name, int64_t outputs) {
      return TakeLinear(source, module + name, outputs, config_.hidden_size, config_.bias);
    };
    if (config_.fused) {
      ESS_ASSIGN_OR_RETURN(
          const std::vector<Linear> parts,
          TakeFusedLinear(source, module + "qkv_proj", {query_width, key_width, key_width},
                          config_.hidden_size, config_.bias));
      query_ = parts[0];
      key_ = parts[1];
      value_ = parts[2];
    } else {
      ESS_ASSIGN_OR_RETURN(query_, take("q_proj", query_width));
      ESS_ASSIGN_OR_RETURN(key_, take("k_proj", key_width));
      ESS_ASSIGN_OR_RETURN(value_, take("v_proj", key_width));
    }
    if (!config_.query_key_norm) return absl::OkStatus();
    const auto take_norm = [&](const char* name) {
      return TakeRmsNorm(source, module + name, config_.head_dim, config_.norm_epsilon,
                         config_.norm_kind);
    };
    ESS_ASSIGN_OR_RETURN(query_norm_, take_norm("q_norm"));
    ESS_ASSIGN_OR_RETURN(key_norm_, take_norm("k_norm"));
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> Attend(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                    ForwardPass& pass) const override {
    const auto heads = [&](const Linear& projection) {  // [L, D] => [L, heads, d]
      return projection(x).view({x.size(0), -1, config_.head_dim});
    };
    at::Tensor queries = heads(query_);
    at::Tensor keys = heads(key_);
    if (config_.query_key_norm) {
      queries = query_norm_(queries);
      keys = key_norm_(keys);
    }
    const AttentionInputs inputs = {.queries = RotateHeads(queries, rotary),
                                    .keys = RotateHeads(keys, rotary),
                                    .values = heads(value_).transpose(0, 1),
                                    .scale = config_.scale,
                                    .soft_cap = config_.soft_cap,
                                    .window = config_.window};
    return CausalAttention(inputs, mixer, pass);
  }

 private:
  const GroupedQueryConfig config_;
  Linear query_, key_, value_;
  RmsNorm query_norm_, key_norm_;  // Of one head, where the config has them.
};

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionLayer>> TakeGroupedQueryAttention(
    TensorSource& source, const std::string& module, const GroupedQueryConfig& config) {
  auto layer = std::make_unique<GroupedQueryAttention>(config);
  ESS_RETURN_IF_ERROR(layer->Take(source, module));
  return layer;
}

}  // namespace ess::models
