#include "server/models/layers/gated_delta_mixer.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string_view>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/delta_scan.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/unit_norm.h"

namespace ess::models {
namespace {

// What the layer's input becomes before the convolution.
struct Projected {
  at::Tensor mixed;         // [L, 2 G N + H d]: queries, keys, values.
  at::Tensor output_gates;  // [L, H d]
  at::Tensor writes;        // [L, H]: how much of what a key stands for is overwritten.
  at::Tensor time_steps;    // [L, H]
};

class GatedDeltaMixer final : public SequenceMixer {
 public:
  explicit GatedDeltaMixer(const GatedDeltaConfig& config) : config_(config) {}

  absl::Status Take(TensorSource& tensors, const std::string& module) {
    const auto take = [&](const char* name, int64_t rows) {
      return TakeLinear(tensors, module + name, rows, config_.hidden_size, /*bias=*/false);
    };
    const int64_t convolved = 2 * config_.key_width() + config_.value_width();
    if (config_.rows_by_key_head) {
      ESS_ASSIGN_OR_RETURN(mixed_, take("in_proj_qkvz", convolved + config_.value_width()));
      ESS_ASSIGN_OR_RETURN(time_steps_, take("in_proj_ba", 2 * config_.head_count));
    } else {
      ESS_ASSIGN_OR_RETURN(mixed_, take("in_proj_qkv", convolved));
      ESS_ASSIGN_OR_RETURN(output_gates_, take("in_proj_z", config_.value_width()));
      ESS_ASSIGN_OR_RETURN(writes_, take("in_proj_b", config_.head_count));
      ESS_ASSIGN_OR_RETURN(time_steps_, take("in_proj_a", config_.head_count));
    }
    ESS_ASSIGN_OR_RETURN(convolution_,
                         TakeCausalConvolution(tensors, module + "conv1d", convolved,
                                               config_.convolution_taps, /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates,
                         tensors.Take(module + "A_log", {config_.head_count}));
    rates_ = log_rates.to(at::kFloat).exp();
    ESS_ASSIGN_OR_RETURN(const at::Tensor bias,
                         tensors.Take(module + "dt_bias", {config_.head_count}));
    time_step_bias_ = bias.to(at::kFloat);
    ESS_ASSIGN_OR_RETURN(norm_weight_, tensors.Take(module + "norm.weight", {config_.value_dim}));
    ESS_ASSIGN_OR_RETURN(output_, TakeLinear(tensors, module + "out_proj", config_.hidden_size,
                                             config_.value_width(), /*bias=*/false));
    return absl::OkStatus();
  }

  Mixer Describe() const override {
    return {.operator_class = "DeltaRecurrence",
            .head_count = config_.head_count,
            .channels = {config_.value_dim},
            .state_size = operators::StateSize::Constant(config_.key_dim)};
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    const int64_t length = x.size(0);
    const Projected projected = Project(x.to(at::kFloat));
    at::Tensor mixed = convolution_(projected.mixed);
    config_.activation(mixed);
    const auto heads = [&](int64_t first, int64_t count, int64_t width) {  // [L, count, width]
      return mixed.narrow(1, first, count * width).reshape({length, count, width});
    };
    const int64_t keys = config_.key_width();
    const double scale = 1 / std::sqrt(static_cast<double>(config_.key_dim));
    const at::Tensor time_steps = projected.time_steps + time_step_bias_;
    const DeltaScanInputs scan = {
        .head_count = config_.head_count,
        .queries = UnitLength(heads(0, config_.key_head_count, config_.key_dim)).mul_(scale),
        .keys = UnitLength(heads(keys, config_.key_head_count, config_.key_dim)),
        .values = heads(2 * keys, config_.head_count, config_.value_dim),
        .beta = at::sigmoid(projected.writes).unsqueeze(2),
        .log_alpha = at::softplus(time_steps).mul_(rates_).neg_().unsqueeze(2)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, DeltaScan(scan, mixer, pass));  // [L, H, d]
    if (!y.defined()) return y;
    const at::Tensor normal = WeightlessRmsNorm(y, config_.norm_epsilon).to(x.scalar_type());
    const at::Tensor gates = at::silu(projected.output_gates).view(y.sizes());
    return output_(normal.mul(norm_weight_).mul(gates).to(x.scalar_type()).view({length, -1}));
  }

 private:
  // In the dtype of x.
  Projected Project(const at::Tensor& x) const {
    if (!config_.rows_by_key_head) {
      return {.mixed = mixed_(x),
              .output_gates = output_gates_(x),
              .writes = writes_(x),
              .time_steps = time_steps_(x)};
    }
    const int64_t length = x.size(0);
    const int64_t groups = config_.key_head_count;
    const int64_t shared = config_.head_count / groups;  // Heads of a group.
    const int64_t values = shared * config_.value_dim;
    const at::Tensor rows = mixed_(x).view({length, groups, -1});
    const at::Tensor gates = time_steps_(x).view({length, groups, -1});
    const auto part = [&](const at::Tensor& all, int64_t first, int64_t count) {
      return all.narrow(2, first, count).reshape({length, -1});
    };
    const int64_t key_dim = config_.key_dim;
    return {.mixed = at::cat({part(rows, 0, key_dim), part(rows, key_dim, key_dim),
                              part(rows, 2 * key_dim, values)},
                             1),
            .output_gates = part(rows, 2 * key_dim + values, values),
            .writes = part(gates, 0, shared),
            .time_steps = part(gates, shared, shared)};
  }

  const GatedDeltaConfig config_;
  Linear mixed_;                  // With the output gates, where rows are sorted by key head.
  Linear output_gates_, writes_;  // Empty there.
  Linear time_steps_;             // With the writes, there.
  CausalConvolution convolution_;
  at::Tensor rates_;           // [H]
  at::Tensor time_step_bias_;  // [H]
  at::Tensor norm_weight_;     // [d]
  Linear output_;              // [D, H d]
};

}  // namespace

absl::Status ReadGatedDelta(const ConfigReader& config, GatedDeltaConfig& delta) {
  ESS_ASSIGN_OR_RETURN(delta.head_count, config.Size("linear_num_value_heads", 32));
  ESS_ASSIGN_OR_RETURN(delta.key_head_count, config.Size("linear_num_key_heads", 16));
  ESS_ASSIGN_OR_RETURN(delta.key_dim, config.Size("linear_key_head_dim", 128));
  ESS_ASSIGN_OR_RETURN(delta.value_dim, config.Size("linear_value_head_dim", 128));
  ESS_ASSIGN_OR_RETURN(delta.convolution_taps, config.Size("linear_conv_kernel_dim", 4));
  ESS_RETURN_IF_ERROR(config.CheckMultiple("linear_num_value_heads", delta.head_count,
                                           "linear_num_key_heads", delta.key_head_count));
  const auto check = [&](std::string_view dim, int64_t width,
                         std::string_view heads) -> absl::Status {
    if (width <= kMaxConfigSize) return absl::OkStatus();
    return config.Unsupported(dim, fmt::format("{} * {} up to {}", heads, dim, kMaxConfigSize));
  };
  ESS_RETURN_IF_ERROR(check("linear_key_head_dim", delta.key_width(), "linear_num_key_heads"));
  return check("linear_value_head_dim", delta.value_width(), "linear_num_value_heads");
}

absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeGatedDeltaMixer(TensorSource& tensors,
                                                                   const std::string& module,
                                                                   const GatedDeltaConfig& config) {
  auto mixer = std::make_unique<GatedDeltaMixer>(config);
  ESS_RETURN_IF_ERROR(mixer->Take(tensors, module));
  return mixer;
}

}  // namespace ess::models
