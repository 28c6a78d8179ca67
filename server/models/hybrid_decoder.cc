#include "server/models/hybrid_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/mixture_of_experts.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

at::Tensor Scaled(const at::Tensor& x, double scale) { return scale == 1 ? x : x.mul(scale); }

class HybridDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<HybridDecoder>> Create(const HybridDecoderConfig& config,
                                                               TensorSource& tensors,
                                                               TakeHybridLayer take_layer) {
    auto decoder = std::make_unique<HybridDecoder>();
    decoder->config_ = config;
    ESS_ASSIGN_OR_RETURN(decoder->embedding_,
                         tensors.Take(std::string(config.embedding) + ".weight",
                                      {config.vocabulary_size, config.hidden_size}));
    for (int64_t layer = 0; layer < config.layer_count; ++layer) {
      ESS_ASSIGN_OR_RETURN(HybridLayer taken, take_layer(fmt::format("layers.{}.", layer), layer));
      decoder->layers_.push_back(std::move(taken));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_,
                         TakeRmsNorm(tensors, std::string(config.norm), config.hidden_size,
                                     config.norm_epsilon, config.norm_kind));
    ESS_ASSIGN_OR_RETURN(decoder->head_, TakeHead(tensors, "lm_head", decoder->embedding_));
    return decoder;
  }

  // Describes the mixers of all layers, in order, and remembers where each layer's begin.
  std::vector<Mixer> NumberMixers() {
    std::vector<Mixer> mixers;
    for (const HybridLayer& layer : layers_) {
      const int64_t layer_index = std::ssize(first_mixers_);
      first_mixers_.push_back(std::ssize(mixers));
      for (const HybridMixer& part : layer.mixers) {
        Mixer& mixer = mixers.emplace_back(part.mixer->Describe());
        mixer.name =
            layer.mixers.size() > 1 ? MixerName(layer_index, part.kind) : MixerName(layer_index);
        mixer.layer_index = layer_index;
      }
    }
    return mixers;
  }

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    PromptState state;
    state.hidden = Scaled(embeddings, config_.embedding_scale);
    if (config_.float32_residual) state.hidden = state.hidden.to(at::kFloat);
    if (config_.rotary) {
      state.rotary = MakeRotaryTable(*config_.rotary, embeddings.size(0), embedding_.device());
    }
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const HybridLayer& layer = layers_[static_cast<size_t>(layer_index)];
    if (!layer.mixers.empty()) {
      const int64_t part = *pass.mixer() - first_mixers_[static_cast<size_t>(layer_index)];
      ESS_RETURN_IF_ERROR(Mix(layer, part, state, pass));
      const bool last = part + 1 == std::ssize(layer.mixers);
      if (!last || pass.EndsAfter(*pass.mixer())) return absl::OkStatus();
      state.hidden.add_(std::exchange(state.mixed, at::Tensor()));
    }
    if (layer.feed_forward) {
      state.hidden.add_(layer.feed_forward(layer.feed_forward_norm(ForLayers(state.hidden))));
    }
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override {
    return Scaled(head_(norm_(ForLayers(hidden))), config_.logit_scale);
  }

 private:
  // In the weights' dtype.
  at::Tensor ForLayers(const at::Tensor& hidden) const {
    return hidden.to(embedding_.scalar_type());
  }

  // Adds what one of the layer's mixers makes to state.mixed, unless the pass ends after it.
  absl::Status Mix(const HybridLayer& layer, int64_t part, PromptState& state,
                   ForwardPass& pass) const {
    const HybridMixer& mixer = layer.mixers[static_cast<size_t>(part)];
    const at::Tensor x = Scaled(layer.mixer_norm(ForLayers(state.hidden)), mixer.input_scale);
    ESS_ASSIGN_OR_RETURN(at::Tensor mixed, mixer.mixer->Mix(x, state.rotary, *pass.mixer(), pass));
    if (!mixed.defined()) return absl::OkStatus();
    mixed = Scaled(mixed, mixer.output_scale);
    state.mixed = part == 0 ? mixed : state.mixed.add(mixed);
    return absl::OkStatus();
  }

  HybridDecoderConfig config_;
  at::Tensor embedding_;  // [V, D]
  std::vector<HybridLayer> layers_;
  std::vector<int64_t> first_mixers_;  // By layer, of the model's mixers.
  RmsNorm norm_;
  Linear head_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeHybridDecoder(const std::string& model_type,
                                                                 const HybridDecoderConfig& config,
                                                                 TensorSource& tensors,
                                                                 const std::string& device,
                                                                 TakeHybridLayer take_layer) {
  ESS_ASSIGN_OR_RETURN(auto decoder, HybridDecoder::Create(config, tensors, take_layer));
  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = config.vocabulary_size;
  description.max_positions = config.max_positions;
  description.hidden_size = config.hidden_size;
  description.mixers = decoder->NumberMixers();
  return std::make_unique<DecoderModel>(std::move(description), config.layer_count,
                                        std::move(decoder));
}

HybridDecoderConfig HybridOf(const GatedDecoderConfig& config) {
  return {.vocabulary_size = config.vocabulary_size,
          .hidden_size = config.hidden_size,
          .layer_count = config.layer_count,
          .max_positions = config.max_positions,
          .norm_epsilon = config.norm_epsilon,
          .norm_kind = config.norm_kind};
}

absl::StatusOr<std::vector<bool>> ReadLayerKinds(const ConfigReader& config, std::string_view key,
                                                 const std::vector<std::string>& attention,
                                                 const std::vector<std::string>& others,
                                                 std::vector<bool> otherwise) {
  if (!config.Has(key)) return otherwise;
  std::vector<std::string> supported = attention;
  supported.insert(supported.end(), others.begin(), others.end());
  ESS_ASSIGN_OR_RETURN(const std::vector<std::string> kinds,
                       config.Choices(key, std::ssize(otherwise), supported));
  std::vector<bool> attends;
  for (const std::string& kind : kinds) {
    attends.push_back(std::find(attention.begin(), attention.end(), kind) != attention.end());
  }
  return attends;
}

absl::StatusOr<std::vector<bool>> ReadListedLayers(const ConfigReader& config, std::string_view key,
                                                   int64_t layer_count) {
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> indices, config.Indices(key, layer_count));
  std::vector<bool> listed(static_cast<size_t>(layer_count), false);
  for (const int64_t layer : indices) listed[static_cast<size_t>(layer)] = true;
  return listed;
}

absl::StatusOr<HybridLayer> TakeMixerLayer(
    TensorSource& tensors, const std::string& prefix, const GatedDecoderConfig& config,
    const HybridNormNames& norms,
    absl::FunctionRef<absl::StatusOr<std::unique_ptr<SequenceMixer>>()> take_mixer) {
  const auto take_norm = [&](std::string_view name) {
    return TakeRmsNorm(tensors, prefix + std::string(name), config.hidden_size, config.norm_epsilon,
                       config.norm_kind);
  };
  HybridLayer layer;
  ESS_ASSIGN_OR_RETURN(layer.mixer_norm, take_norm(norms.mixer));
  ESS_ASSIGN_OR_RETURN(layer.mixers.emplace_back().mixer, take_mixer());
  ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, take_norm(norms.feed_forward));
  return layer;
}

absl::StatusOr<FeedForward> TakeFeedForward(TensorSource& tensors, const std::string& prefix,
                                            const std::string& module, size_t layer_index,
                                            const GatedDecoderConfig& config) {
  if (config.experts && config.experts->layers[layer_index]) {
    return TakeExperts(tensors, prefix, *config.experts, config.hidden_size, config.activation);
  }
  return TakeGatedFeedForward(tensors, prefix + module,
                              {.width = config.hidden_size,
                               .inner = config.intermediate_size,
                               .bias = config.feed_forward_bias,
                               .activation = config.activation});
}

AttentionMixerConfig AttentionOf(const GatedDecoderConfig& config) {
  return {.heads = HeadsOf(config), .output_bias = config.attention_output_bias};
}

absl::StatusOr<InitialWeights> MambaHybridInitialWeights(const ConfigReader& config,
                                                         std::optional<int64_t> padding) {
  return ReadInitialWeights(config, {.padded_embedding = "embed_tokens", .padding = padding},
                            {{.names = "*.A_log", .distribution = LogOfCount()},
                             {.names = "*.D", .distribution = Constant(1)},
                             {.names = "*.dt_bias", .distribution = Constant(1)}});
}

}  // namespace ess::models
