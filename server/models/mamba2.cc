#include "server/models/mamba2.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/head_scan_mixer.h"
#include "server/models/mamba_decoder.h"

namespace ess::models {
namespace {

// Of a config that is silent.
constexpr int64_t kLayerCount = 64;

struct Mamba2Config {
  MambaSizes sizes;
  HeadScanConfig scan;
};

absl::StatusOr<Mamba2Config> ReadMamba2Config(const ConfigReader& config) {
  Mamba2Config mamba;
  ESS_ASSIGN_OR_RETURN(mamba.sizes, ReadMambaSizes(config, {.vocabulary_size = 32768,
                                                            .hidden_size = 4096,
                                                            .state_size = 128,
                                                            .layer_count = kLayerCount}));
  const MambaSizes& sizes = mamba.sizes;
  HeadScanConfig& scan = mamba.scan;
  scan.hidden_size = sizes.hidden_size;
  scan.state_size = sizes.state_size;
  scan.convolution_taps = sizes.convolution_taps;
  scan.input_bias = scan.output_bias = sizes.projection_bias;
  scan.convolution_bias = sizes.convolution_bias;
  scan.norm_epsilon = sizes.norm_epsilon;
  ESS_ASSIGN_OR_RETURN(scan.head_count, config.Size("num_heads", 128));
  ESS_ASSIGN_OR_RETURN(scan.head_dim, config.Size("head_dim", 64));
  ESS_ASSIGN_OR_RETURN(scan.group_count, config.Size("n_groups", 8));
  const std::string width_name =
      fmt::format("{} * {}", config.Name("expand"), config.Name("hidden_size"));
  ESS_RETURN_IF_ERROR(CheckHeadScan(config, scan, sizes.intermediate_size, width_name,
                                    {.head_count = "num_heads",
                                     .head_dim = "head_dim",
                                     .group_count = "n_groups",
                                     .state_size = "state_size"}));
  ESS_ASSIGN_OR_RETURN(scan.time_step_limit, config.Bounds("time_step_limit"));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "silu", ActivationNames()));
  scan.activation = FindActivation(activation);
  return mamba;
}

absl::StatusOr<InitialWeights> Mamba2InitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(InitialWeights weights,
                       ReadMambaInitialWeights(config, /*tied_head=*/false, kLayerCount));
  ESS_ASSIGN_OR_RETURN(Distribution time_steps, ReadInitialTimeSteps(config));
  weights.rules.push_back({.names = "*.dt_bias", .distribution = std::move(time_steps)});
  return weights;
}

// Four heads in two groups.
nlohmann::json TinyMamba2Config() {
  return {{"model_type", "mamba2"}, {"vocab_size", 31}, {"hidden_size", 8}, {"state_size", 4},
          {"num_hidden_layers", 3}, {"expand", 2},      {"conv_kernel", 3}, {"num_heads", 4},
          {"head_dim", 4},          {"n_groups", 2},    {"use_bias", true}};
}

}  // namespace

Architecture Mamba2Architecture() {
  return MambaStackArchitecture<ReadMamba2Config, TakeHeadScanMixer>(
      {.model_type = "mamba2",
       .initial_weights = Mamba2InitialWeights,
       .tiny_config = TinyMamba2Config});
}

}  // namespace ess::models
