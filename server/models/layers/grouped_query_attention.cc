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
      ESS_ASSIGN_OR_RETURN(query_, take("q_proj", (config_.gated ? 2 : 1) * query_width));
      ESS_ASSIGN_OR_RETURN(key_, take("k_proj", key_width));
      ESS_ASSIGN_OR_RETURN(value_, take("v_proj", key_width));
    }
    if (!config_.query_key_norm) return absl::OkStatus();
    const auto take_norm = [&](std::string_view name) {
      return TakeRmsNorm(source, module + std::string(name), config_.head_dim, config_.norm_epsilon,
                         config_.norm_kind);
    };
    ESS_ASSIGN_OR_RETURN(query_norm_, take_norm(config_.query_norm));
    ESS_ASSIGN_OR_RETURN(key_norm_, take_norm(config_.key_norm));
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> Attend(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                    ForwardPass& pass) const override {
    const at::Tensor wide = x.to(at::kFloat);  // Of what attention scores.
    const auto heads = [&](const Linear& projection, const at::Tensor& from) {
      return projection(from).view({from.size(0), -1, config_.head_dim});  // [L, heads, d]
    };
    at::Tensor queries = query_(wide).view({x.size(0), config_.head_count, -1});
    at::Tensor gates;  // [L, H, d]
    if (config_.gated) {
      gates = queries.narrow(2, config_.head_dim, config_.head_dim);
      queries = queries.narrow(2, 0, config_.head_dim);
    }
    at::Tensor keys = heads(key_, wide);
    if (config_.query_key_norm) {
      queries = query_norm_(queries);
      keys = key_norm_(keys);
    }
    const AttentionInputs inputs = {.queries = Placed(queries, rotary),
                                    .keys = Placed(keys, rotary),
                                    .values = heads(value_, x).transpose(0, 1),
                                    .scale = config_.scale,
                                    .soft_cap = config_.soft_cap,
                                    .window = config_.window};
    ESS_ASSIGN_OR_RETURN(at::Tensor mixed, CausalAttention(inputs, mixer, pass));
    if (gates.defined() && mixed.defined()) mixed.view(gates.sizes()).mul_(at::sigmoid(gates));
    return mixed;
  }

 private:
  // [L, heads, d] => contiguous [heads, L, d], rotated unless the table is empty.
  static at::Tensor Placed(const at::Tensor& heads, const RotaryTable& rotary) {
    return rotary.cos.defined() ? RotateHeads(heads, rotary) : heads.transpose(0, 1).contiguous();
  }

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
