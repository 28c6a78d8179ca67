#include "server/models/mamba.h"

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/selective_scan.h"
#include "server/models/mamba_decoder.h"
#include "server/operators/selective_scan.h"

namespace ess::models {
namespace {

struct MambaConfig {
  MambaSizes sizes;
  int64_t time_step_rank = 0;
  ActivationInPlace activation = nullptr;
  std::optional<double> feature_norm_epsilon;  // Of delta, B and C (Falcon-Mamba).
};

// "auto" is ceil(D / 16).
absl::StatusOr<int64_t> ReadTimeStepRank(const ConfigReader& config, int64_t hidden_size) {
  constexpr std::string_view kKey = "time_step_rank";
  if (config.String(kKey, "auto").value_or("") == "auto") return (hidden_size + 15) / 16;
  return config.Size(kKey, std::nullopt);
}

absl::StatusOr<MambaConfig> ReadMambaConfig(const ConfigReader& config) {
  MambaConfig mamba;
  ESS_ASSIGN_OR_RETURN(mamba.sizes, ReadMambaSizes(config, {.vocabulary_size = 50280,
                                                            .hidden_size = 768,
                                                            .state_size = 16,
                                                            .layer_count = 32}));
  ESS_ASSIGN_OR_RETURN(mamba.time_step_rank, ReadTimeStepRank(config, mamba.sizes.hidden_size));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "silu", ActivationNames()));
  mamba.activation = FindActivation(activation);
  return mamba;
}

class SelectiveScanMixer final : public MambaMixer {
 public:
  static absl::StatusOr<std::unique_ptr<MambaMixer>> Take(TensorSource& tensors,
                                                          const MambaConfig& config,
                                                          const std::string& prefix) {
    const MambaSizes& sizes = config.sizes;
    const int64_t width = sizes.intermediate_size;
    auto mixer = std::make_unique<SelectiveScanMixer>();
    mixer->config_ = config;
    ESS_ASSIGN_OR_RETURN(mixer->input_, TakeLinear(tensors, prefix + "in_proj", 2 * width,
                                                   sizes.hidden_size, sizes.projection_bias));
    ESS_ASSIGN_OR_RETURN(mixer->convolution_,
                         TakeCausalConvolution(tensors, prefix + "conv1d", width,
                                               sizes.convolution_taps, sizes.convolution_bias));
    ESS_ASSIGN_OR_RETURN(
        mixer->features_,
        TakeLinear(tensors, prefix + "x_proj", config.time_step_rank + 2 * sizes.state_size, width,
                   /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(mixer->time_step_, TakeLinear(tensors, prefix + "dt_proj", width,
                                                       config.time_step_rank, /*bias=*/true));
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates,
                         tensors.Take(prefix + "A_log", {width, sizes.state_size}));
    mixer->A_ = log_rates.to(at::kFloat).exp().neg();
    ESS_ASSIGN_OR_RETURN(const at::Tensor skip, tensors.Take(prefix + "D", {width}));
    mixer->skip_ = skip.to(at::kFloat);
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeLinear(tensors, prefix + "out_proj", sizes.hidden_size,
                                                    width, sizes.projection_bias));
    return mixer;
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& u, int64_t mixer,
                                 ForwardPass& pass) const override {
    const at::Tensor projected = input_(u);  // [L, 2 E]: what is scanned, then its gate.
    const int64_t width = config_.sizes.intermediate_size;
    at::Tensor x = convolution_(projected.narrow(1, 0, width));
    config_.activation(x);
    const ScanInputs scan = MakeScan(x);
    if (pass.Wants(mixer)) {
      const operators::SelectiveScan op(scan.delta.t(), scan.A, scan.B, scan.C);
      ESS_RETURN_IF_ERROR(pass.Accept(mixer, /*first_head=*/0, op));
    }
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(at::Tensor y, RunSelectiveScan(scan, pass));  // [L, E]
    y.addcmul_(x.to(at::kFloat), skip_);
    y.mul_(at::silu(projected.narrow(1, width, width)));
    return output_(y.to(u.scalar_type()));
  }

 private:
  ScanInputs MakeScan(const at::Tensor& x) const {
    const int64_t rank = config_.time_step_rank;
    const int64_t states = config_.sizes.state_size;
    const at::Tensor features = features_(x);
    const auto part = [&](int64_t first, int64_t count) {
      const at::Tensor columns = features.narrow(1, first, count);
      return config_.feature_norm_epsilon
                 ? WeightlessRmsNorm(columns, *config_.feature_norm_epsilon)
                 : columns;
    };
    const at::Tensor time_step =
        at::linear(part(0, rank), time_step_.weight).to(at::kFloat) + time_step_.bias;
    return {.x = x,
            .delta = at::softplus(time_step),
            .A = A_,
            .B = part(rank, states).to(at::kFloat),
            .C = part(rank + states, states).to(at::kFloat)};
  }

  MambaConfig config_;
  Linear input_;                   // [2 E, D]
  CausalConvolution convolution_;  // E channels
  Linear features_;                // [rank + 2 N, E]: delta's, B, C.
  Linear time_step_;               // [E, rank]
  at::Tensor A_;                   // [E, N]
  at::Tensor skip_;                // [E], "D" in the paper.
  Linear output_;                  // [D, E]
};

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeMamba(const std::string& model_type,
                                                         const MambaConfig& mamba,
                                                         TensorSource& tensors,
                                                         const std::string& device) {
  const Mixer mixer{.name = {},
                    .operator_class = "SelectiveScan",
                    .head_count = mamba.sizes.intermediate_size,
                    .channels = {1},
                    .state_size = operators::StateSize::Constant(mamba.sizes.state_size)};
  return MakeMambaDecoder(
      model_type, mamba.sizes, mixer, tensors, device,
      [&](const std::string& prefix) { return SelectiveScanMixer::Take(tensors, mamba, prefix); });
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateMamba(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const MambaConfig mamba, ReadMambaConfig(config));
  return MakeMamba("mamba", mamba, tensors, device);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateFalconMamba(const ConfigReader& config,
                                                                 TensorSource& tensors,
                                                                 const std::string& device) {
  ESS_ASSIGN_OR_RETURN(MambaConfig mamba, ReadMambaConfig(config));
  ESS_ASSIGN_OR_RETURN(mamba.feature_norm_epsilon, config.Number("mixer_rms_eps", 1e-6, 0, 1));
  return MakeMamba("falcon_mamba", mamba, tensors, device);
}

absl::StatusOr<InitialWeights> MambaInitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(InitialWeights weights, ReadMambaInitialWeights(config, /*tied_head=*/true));
  ESS_ASSIGN_OR_RETURN(const double scale, config.Number("time_step_scale", 1, -1e9, 1e9));
  ESS_ASSIGN_OR_RETURN(const std::string scheme,
                       config.Choice("time_step_init_scheme", "random", {"constant", "random"}));
  weights.rules.push_back(
      {.names = "*.dt_proj.weight",
       .distribution = scheme == "random" ? UniformByInputs(scale) : ConstantByInputs(scale)});
  ESS_ASSIGN_OR_RETURN(Distribution time_steps, ReadInitialTimeSteps(config));
  weights.rules.push_back({.names = "*.dt_proj.bias", .distribution = std::move(time_steps)});
  return weights;
}

nlohmann::json TinyConfig(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 31}, {"hidden_size", 8}, {"state_size", 4},
          {"num_hidden_layers", 3},   {"expand", 2},      {"conv_kernel", 3}, {"use_bias", true}};
}

nlohmann::json TinyMambaConfig() { return TinyConfig("mamba"); }
nlohmann::json TinyFalconMambaConfig() { return TinyConfig("falcon_mamba"); }

}  // namespace

Architecture MambaArchitecture() {
  return {.model_type = "mamba",
          .base_prefixes = {"backbone."},
          .ignored_suffixes = {},
          .create = CreateMamba,
          .initial_weights = MambaInitialWeights,
          .tiny_config = TinyMambaConfig};
}

Architecture FalconMambaArchitecture() {
  return {.model_type = "falcon_mamba",
          .base_prefixes = {"backbone."},
          .ignored_suffixes = {},
          .create = CreateFalconMamba,
          .initial_weights = MambaInitialWeights,
          .tiny_config = TinyFalconMambaConfig};
}

}  // namespace ess::models
