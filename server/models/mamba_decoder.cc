#include "server/models/mamba_decoder.h"

#include <ATen/ATen.h>

#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct MambaLayer {
  RmsNorm norm;
  std::unique_ptr<MambaMixer> mixer;
};

class MambaDecoder final : public Decoder {
 public:
  MambaDecoder(at::Tensor embedding, std::vector<MambaLayer> layers, RmsNorm norm, Linear head)
      : embedding_(std::move(embedding)),
        layers_(std::move(layers)),
        norm_(std::move(norm)),
        head_(std::move(head)) {}

  const at::Tensor& embedding() const override { return embedding_; }

  // The residual stream stays in float32, whatever the weights' dtype.
  PromptState Begin(const at::Tensor& embeddings) const override {
    PromptState state;
    state.hidden = embeddings.to(at::kFloat);
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const MambaLayer& layer = layers_[static_cast<size_t>(layer_index)];
    const at::Tensor x = layer.norm(state.hidden.to(embedding_.scalar_type()));
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, layer.mixer->Mix(x, layer_index, pass));
    if (mixed.defined()) state.hidden.add_(mixed);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override {
    return head_(norm_(hidden.to(embedding_.scalar_type())));
  }

 private:
  const at::Tensor embedding_;  // [V, D]
  const std::vector<MambaLayer> layers_;
  const RmsNorm norm_;
  const Linear head_;
};

}  // namespace

absl::StatusOr<MambaSizes> ReadMambaSizes(const ConfigReader& config,
                                          const MambaDefaults& defaults) {
  MambaSizes sizes;
  ESS_ASSIGN_OR_RETURN(sizes.vocabulary_size, config.Size("vocab_size", defaults.vocabulary_size));
  ESS_ASSIGN_OR_RETURN(sizes.hidden_size, config.Size("hidden_size", defaults.hidden_size));
  ESS_ASSIGN_OR_RETURN(sizes.state_size, config.Size("state_size", defaults.state_size));
  ESS_ASSIGN_OR_RETURN(sizes.layer_count, config.Size("num_hidden_layers", defaults.layer_count));
  ESS_ASSIGN_OR_RETURN(sizes.convolution_taps, config.Size("conv_kernel", 4));
  ESS_ASSIGN_OR_RETURN(const int64_t expand, config.Size("expand", 2));
  if (expand > kMaxConfigSize / sizes.hidden_size) {
    return config.Unsupported("expand",
                              fmt::format("expand * hidden_size up to {}", kMaxConfigSize));
  }
  // Some files say it outright, and mean it.
  ESS_ASSIGN_OR_RETURN(sizes.intermediate_size,
                       config.Size("intermediate_size", expand * sizes.hidden_size));
  ESS_ASSIGN_OR_RETURN(sizes.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(sizes.projection_bias, config.Bool("use_bias", false));
  ESS_ASSIGN_OR_RETURN(sizes.convolution_bias, config.Bool("use_conv_bias", true));
  return sizes;
}

absl::StatusOr<InitialWeights> ReadMambaInitialWeights(const ConfigReader& config, bool tied_head) {
  ESS_ASSIGN_OR_RETURN(const int64_t layers, config.Size("num_hidden_layers", 64));
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

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeMambaDecoder(
    const std::string& model_type, const MambaSizes& sizes, const Mixer& mixer,
    TensorSource& tensors, const std::string& device, TakeMambaMixer take_mixer) {
  const bool older = tensors.Has("embedding.weight") && !tensors.Has("embeddings.weight");
  const std::string embeddings = older ? "embedding.weight" : "embeddings.weight";
  ESS_ASSIGN_OR_RETURN(const at::Tensor embedding,
                       tensors.Take(embeddings, {sizes.vocabulary_size, sizes.hidden_size}));
  std::vector<MambaLayer> layers;
  for (int64_t layer = 0; layer < sizes.layer_count; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    MambaLayer& taken = layers.emplace_back();
    ESS_ASSIGN_OR_RETURN(
        taken.norm, TakeRmsNorm(tensors, prefix + "norm", sizes.hidden_size, sizes.norm_epsilon));
    ESS_ASSIGN_OR_RETURN(taken.mixer, take_mixer(prefix + "mixer."));
  }
  ESS_ASSIGN_OR_RETURN(RmsNorm norm,
                       TakeRmsNorm(tensors, "norm_f", sizes.hidden_size, sizes.norm_epsilon));
  ESS_ASSIGN_OR_RETURN(Linear head, TakeHead(tensors, "lm_head", embedding));
  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = sizes.vocabulary_size;
  description.max_positions = 0;  // A recurrence has no limit.
  description.hidden_size = sizes.hidden_size;
  for (int64_t layer = 0; layer < sizes.layer_count; ++layer) {
    Mixer& described = description.mixers.emplace_back(mixer);
    described.name = MixerName(layer);
    described.layer_index = layer;
  }
  return std::make_unique<DecoderModel>(
      std::move(description), sizes.layer_count,
      std::make_unique<MambaDecoder>(embedding, std::move(layers), std::move(norm),
                                     std::move(head)));
}

}  // namespace ess::models
