#include "server/models/mamba_decoder.h"

#include <cmath>

#include "server/base/status_macros.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/rms_norm.h"

namespace ess::models {
absl::StatusOr<MambaSizes> ReadMambaSizes(const ConfigReader& config,
                                          const MambaDefaults& defaults) {
  MambaSizes sizes;
  ESS_ASSIGN_OR_RETURN(sizes.vocabulary_size, config.Size("vocab_size", defaults.vocabulary_size));
  ESS_ASSIGN_OR_RETURN(sizes.hidden_size, config.Size("hidden_size", defaults.hidden_size));
  ESS_ASSIGN_OR_RETURN(sizes.state_size, config.Size("state_size", defaults.state_size));
  ESS_ASSIGN_OR_RETURN(sizes.layer_count,
                       config.Size("num_hidden_layers", defaults.layer_count, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(sizes.convolution_taps, config.Size("conv_kernel", 4));
  ESS_ASSIGN_OR_RETURN(const int64_t expanded,
                       config.SizeTimes("expand", 2, "hidden_size", sizes.hidden_size));
  // Some files say it outright, and mean it.
  ESS_ASSIGN_OR_RETURN(sizes.intermediate_size, config.Size("intermediate_size", expanded));
  ESS_ASSIGN_OR_RETURN(sizes.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(sizes.projection_bias, config.Bool("use_bias", false));
  ESS_ASSIGN_OR_RETURN(sizes.convolution_bias, config.Bool("use_conv_bias", true));
  return sizes;
}

absl::StatusOr<InitialWeights> ReadMambaInitialWeights(const ConfigReader& config, bool tied_head,
                                                       int64_t default_layers) {
  ESS_ASSIGN_OR_RETURN(const int64_t layers,
                       config.Size("num_hidden_layers", default_layers, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(const bool rescale, config.Bool("rescale_prenorm_residual", false));
  const double residual_scale = rescale ? 1 / std::sqrt(static_cast<double>(layers)) : 1;
  return ReadInitialWeights(
      config, {.standard_deviation = 0.1, .tied_head = tied_head},
      {{.names = "*.A_log", .distribution = LogOfCount()},
       {.names = "*.D", .distribution = Constant(1)},
       {.names = "*.conv1d.weight", .distribution = UniformByInputs(1)},
       {.names = "*.out_proj.weight", .distribution = UniformByInputs(residual_scale)}});
}

absl::StatusOr<Distribution> ReadInitialTimeSteps(const ConfigReader& config) {
  constexpr double kLeast = 1e-30, kMost = 1e30;
  ESS_ASSIGN_OR_RETURN(const double low, config.Number("time_step_min", 1e-3, kLeast, kMost));
  ESS_ASSIGN_OR_RETURN(const double high, config.Number("time_step_max", 1e-1, kLeast, kMost));
  ESS_ASSIGN_OR_RETURN(const double floor, config.Number("time_step_floor", 1e-4, kLeast, kMost));
  return SoftplusInverseOfLogUniform(low, high, floor);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeMambaDecoder(const std::string& model_type,
                                                                const MambaSizes& sizes,
                                                                TensorSource& tensors,
                                                                const std::string& device,
                                                                TakeMambaMixer take_mixer) {
  const bool older = tensors.Has("embedding.weight") && !tensors.Has("embeddings.weight");
  const HybridDecoderConfig stack = {.vocabulary_size = sizes.vocabulary_size,
                                     .hidden_size = sizes.hidden_size,
                                     .layer_count = sizes.layer_count,
                                     .norm_epsilon = sizes.norm_epsilon,
                                     .float32_residual = true,
                                     .embedding = older ? "embedding" : "embeddings",
                                     .norm = "norm_f"};
  const auto take_layer = [&](const std::string& prefix, int64_t) -> absl::StatusOr<HybridLayer> {
    HybridLayer layer;
    ESS_ASSIGN_OR_RETURN(layer.mixer_norm, TakeRmsNorm(tensors, prefix + "norm", sizes.hidden_size,
                                                       sizes.norm_epsilon));
    ESS_ASSIGN_OR_RETURN(layer.mixers.emplace_back().mixer, take_mixer(prefix + "mixer."));
    return layer;
  };
  return MakeHybridDecoder(model_type, stack, tensors, device, take_layer);
}

}  // namespace ess::models
