#include "server/models/layers/selective_scan_mixer.h"

#include <ATen/ATen.h>

#include <optional>

#include "server/base/status_macros.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/selective_scan.h"
#include "server/operators/selective_scan.h"

namespace ess::models {
namespace {

class SelectiveScanMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const std::string& prefix,
                                                             const SelectiveScanConfig& config) {
    const int64_t width = config.channels;
    const int64_t states = config.state_size;
    auto mixer = std::make_unique<SelectiveScanMixer>();
    mixer->config_ = config;
    ESS_ASSIGN_OR_RETURN(mixer->input_, TakeLinear(tensors, prefix + "in_proj", 2 * width,
                                                   config.hidden_size, config.projection_bias));
    ESS_ASSIGN_OR_RETURN(mixer->convolution_,
                         TakeCausalConvolution(tensors, prefix + "conv1d", width,
                                               config.convolution_taps, config.convolution_bias));
    ESS_ASSIGN_OR_RETURN(mixer->features_,
                         TakeLinear(tensors, prefix + "x_proj", config.time_step_rank + 2 * states,
                                    width, /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(mixer->time_step_, TakeLinear(tensors, prefix + "dt_proj", width,
                                                       config.time_step_rank, /*bias=*/true));
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates,
                         tensors.Take(prefix + "A_log", {width, states}));
    mixer->A_ = log_rates.to(at::kFloat).exp().neg();
    ESS_ASSIGN_OR_RETURN(const at::Tensor skip, tensors.Take(prefix + "D", {width}));
    mixer->skip_ = skip.to(at::kFloat);
    ESS_RETURN_IF_ERROR(mixer->TakeNorms(tensors, prefix));
    ESS_ASSIGN_OR_RETURN(mixer->output_,
                         TakeLinear(tensors, prefix + "out_proj", config.hidden_size, width,
                                    config.projection_bias));
    return mixer;
  }

  Mixer Describe() const override {
    return {.operator_class = "SelectiveScan",
            .head_count = config_.channels,
            .channels = {1},
            .state_size = operators::StateSize::Constant(config_.state_size)};
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& u, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    // [L, 2 E] float32: what is scanned, and makes the operators, then its gate.
    const at::Tensor projected = input_(u.to(at::kFloat));
    const int64_t width = config_.channels;
    at::Tensor x = convolution_(projected.narrow(1, 0, width));
    config_.activation(x);
    const ScanInputs scan = MakeScan(x);
    if (pass.Wants(mixer)) {
      const operators::SelectiveScan op(scan.delta.t(), scan.A, scan.B, scan.C);
      ESS_RETURN_IF_ERROR(pass.Accept(mixer, /*first_head=*/0, op));
    }
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(at::Tensor y, RunSelectiveScan(scan, pass));  // [L, E]
    y.addcmul_(x, skip_);
    y.mul_(at::silu(projected.narrow(1, width, width)));
    return output_(y.to(u.scalar_type()));
  }

 private:
  absl::Status TakeNorms(TensorSource& tensors, const std::string& prefix) {
    if (config_.feature_norms != ScanFeatureNorms::kLearned) return absl::OkStatus();
    const auto take = [&](const char* name, int64_t width) {
      return TakeRmsNorm(tensors, prefix + name, width, config_.feature_norm_epsilon);
    };
    ESS_ASSIGN_OR_RETURN(time_step_norm_, take("dt_layernorm", config_.time_step_rank));
    ESS_ASSIGN_OR_RETURN(B_norm_, take("b_layernorm", config_.state_size));
    ESS_ASSIGN_OR_RETURN(C_norm_, take("c_layernorm", config_.state_size));
    return absl::OkStatus();
  }

  at::Tensor Normalized(const at::Tensor& x, const RmsNorm& learned) const {
    switch (config_.feature_norms) {
      case ScanFeatureNorms::kNone:
        return x;
      case ScanFeatureNorms::kWeightless:
        return WeightlessRmsNorm(x, config_.feature_norm_epsilon);
      case ScanFeatureNorms::kLearned:
        return learned(x);
    }
    return x;
  }

  ScanInputs MakeScan(const at::Tensor& x) const {
    const int64_t rank = config_.time_step_rank;
    const int64_t states = config_.state_size;
    const at::Tensor features = features_(x);
    const at::Tensor time_step =
        time_step_(Normalized(features.narrow(1, 0, rank), time_step_norm_));
    return {.x = x,
            .delta = at::softplus(time_step),
            .A = A_,
            .B = Normalized(features.narrow(1, rank, states), B_norm_),
            .C = Normalized(features.narrow(1, rank + states, states), C_norm_)};
  }

  SelectiveScanConfig config_;
  Linear input_;                              // [2 E, D]
  CausalConvolution convolution_;             // E channels
  Linear features_;                           // [rank + 2 N, E]: delta's, B, C.
  Linear time_step_;                          // [E, rank]
  RmsNorm time_step_norm_, B_norm_, C_norm_;  // Where they are learned.
  at::Tensor A_;                              // [E, N]
  at::Tensor skip_;                           // [E], "D" in the paper.
  Linear output_;                             // [D, E]
};

}  // namespace

absl::StatusOr<int64_t> ReadTimeStepRank(const ConfigReader& config, std::string_view key,
                                         int64_t hidden_size) {
  if (config.String(key, "auto").value_or("") == "auto") return (hidden_size + 15) / 16;
  return config.Size(key, std::nullopt);
}

absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeSelectiveScanMixer(
    TensorSource& tensors, const std::string& prefix, const SelectiveScanConfig& config) {
  return SelectiveScanMixer::Take(tensors, prefix, config);
}

}  // namespace ess::models
