#include "server/models/mamba.h"

#include <string>
#include <utility>

#include "server/base/status_macros.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/selective_scan_mixer.h"
#include "server/models/mamba_decoder.h"

namespace ess::models {
namespace {

// Of a config that is silent.
constexpr int64_t kLayerCount = 32;

struct MambaConfig {
  MambaSizes sizes;
  SelectiveScanConfig scan;
};

absl::StatusOr<MambaConfig> ReadMambaConfig(const ConfigReader& config) {
  MambaConfig mamba;
  ESS_ASSIGN_OR_RETURN(mamba.sizes, ReadMambaSizes(config, {.vocabulary_size = 50280,
                                                            .hidden_size = 768,
                                                            .state_size = 16,
                                                            .layer_count = kLayerCount}));
  const MambaSizes& sizes = mamba.sizes;
  mamba.scan = {.hidden_size = sizes.hidden_size,
                .channels = sizes.intermediate_size,
                .state_size = sizes.state_size,
                .convolution_taps = sizes.convolution_taps,
                .projection_bias = sizes.projection_bias,
                .convolution_bias = sizes.convolution_bias};
  ESS_ASSIGN_OR_RETURN(mamba.scan.time_step_rank,
                       ReadTimeStepRank(config, "time_step_rank", sizes.hidden_size));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "silu", ActivationNames()));
  mamba.scan.activation = FindActivation(activation);
  return mamba;
}

absl::StatusOr<MambaConfig> ReadFalconMambaConfig(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(MambaConfig mamba, ReadMambaConfig(config));
  mamba.scan.feature_norms = ScanFeatureNorms::kWeightless;
  ESS_ASSIGN_OR_RETURN(mamba.scan.feature_norm_epsilon, config.Number("mixer_rms_eps", 1e-6, 0, 1));
  return mamba;
}

absl::StatusOr<InitialWeights> MambaInitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(InitialWeights weights,
                       ReadMambaInitialWeights(config, /*tied_head=*/true, kLayerCount));
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
  return MambaStackArchitecture<ReadMambaConfig, TakeSelectiveScanMixer>(
      {.model_type = "mamba",
       .initial_weights = MambaInitialWeights,
       .tiny_config = TinyMambaConfig});
}

Architecture FalconMambaArchitecture() {
  return MambaStackArchitecture<ReadFalconMambaConfig, TakeSelectiveScanMixer>(
      {.model_type = "falcon_mamba",
       .initial_weights = MambaInitialWeights,
       .tiny_config = TinyFalconMambaConfig});
}

}  // namespace ess::models
