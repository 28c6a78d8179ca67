#include "server/models/rwkv_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr double kMaxRatio = 1024;

struct RwkvLayer {
  LayerNorm mixer_norm;
  std::unique_ptr<RwkvMixer> mixer;
  LayerNorm feed_forward_norm;
  RwkvFeedForward feed_forward;
};

class RwkvDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<RwkvDecoder>> Create(
      const RwkvSizes& sizes, TensorSource& tensors, TakeRwkvMixer take_mixer,
      TakeRwkvFeedForward take_feed_forward) {
    auto decoder = std::make_unique<RwkvDecoder>();
    decoder->activation_ = sizes.activation;
    const auto take_norm = [&](const std::string& name) {
      return TakeLayerNorm(tensors, name, sizes.hidden_size, sizes.norm_epsilon, sizes.norm_bias);
    };
    ESS_ASSIGN_OR_RETURN(
        decoder->embedding_,
        tensors.Take("embeddings.weight", {sizes.vocabulary_size, sizes.hidden_size}));
    if (sizes.norm_first) {
      ESS_ASSIGN_OR_RETURN(decoder->embedding_norm_, take_norm("layers.0.pre_norm"));
    }
    for (int64_t index = 0; index < sizes.layer_count; ++index) {
      const std::string prefix = fmt::format("layers.{}.", index);
      RwkvLayer& layer = decoder->layers_.emplace_back();
      ESS_ASSIGN_OR_RETURN(layer.mixer_norm, take_norm(prefix + "attn_norm"));
      ESS_ASSIGN_OR_RETURN(layer.mixer, take_mixer(prefix + "attn.", index));
      ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, take_norm(prefix + "ffn_norm"));
      ESS_ASSIGN_OR_RETURN(layer.feed_forward, take_feed_forward(prefix + "ffn."));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_, take_norm("norm"));
    ESS_ASSIGN_OR_RETURN(decoder->head_, TakeHead(tensors, "lm_head", decoder->embedding_));
    return decoder;
  }

  std::vector<Mixer> Describe() const {
    std::vector<Mixer> mixers;
    for (const RwkvLayer& layer : layers_) {
      const auto index = static_cast<int64_t>(mixers.size());
      Mixer& mixer = mixers.emplace_back(layer.mixer->Describe());
      mixer.name = MixerName(index);
      mixer.layer_index = index;
    }
    return mixers;
  }

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    PromptState state;
    state.hidden = embeddings;
    if (embedding_norm_.has_value()) state.hidden = (*embedding_norm_)(state.hidden);
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const RwkvLayer& layer = layers_[static_cast<size_t>(layer_index)];
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, layer.mixer->Mix(layer.mixer_norm(state.hidden),
                                                                  state, layer_index, pass));
    if (!mixed.defined()) return absl::OkStatus();
    state.hidden.add_(mixed);
    AddFeedForward(layer, state.hidden);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(norm_(hidden)); }

 private:
  void AddFeedForward(const RwkvLayer& layer, at::Tensor& hidden) const {
    const RwkvFeedForward& feed_forward = layer.feed_forward;
    const at::Tensor x = layer.feed_forward_norm(hidden);
    const at::Tensor delta = TokenShift(x);
    at::Tensor inner = feed_forward.key(x, delta);
    activation_(inner);
    if (feed_forward.receptance.mu.defined()) {
      hidden.addcmul_(feed_forward.receptance(x, delta).sigmoid_(), feed_forward.value(inner));
    } else {
      feed_forward.value.AddToInPlace(hidden, inner);
    }
  }

  ActivationInPlace activation_ = nullptr;
  at::Tensor embedding_;  // [V, D]
  std::optional<LayerNorm> embedding_norm_;
  std::vector<RwkvLayer> layers_;
  LayerNorm norm_;
  Linear head_;
};

}  // namespace

absl::StatusOr<RwkvSizes> ReadRwkvSizes(const ConfigReader& config, double default_ratio) {
  RwkvSizes sizes;
  ESS_ASSIGN_OR_RETURN(sizes.vocabulary_size, config.Size("vocab_size", 32000));
  ESS_ASSIGN_OR_RETURN(sizes.hidden_size, config.Size("hidden_size", 2048));
  ESS_ASSIGN_OR_RETURN(sizes.layer_count, config.Size("num_hidden_layers", 24, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(const double ratio,
                       config.Number("hidden_ratio", default_ratio, 1e-3, kMaxRatio));
  const double inner = static_cast<double>(sizes.hidden_size) * ratio;
  ESS_ASSIGN_OR_RETURN(sizes.intermediate_size,
                       config.Size("intermediate_size", RoundUp(inner, 32)));
  ESS_RETURN_IF_ERROR(CheckWidth(config, sizes.intermediate_size, "hidden_size * hidden_ratio"));
  ESS_ASSIGN_OR_RETURN(sizes.norm_epsilon, config.Number("norm_eps", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(sizes.norm_bias, config.Bool("norm_bias", true));
  ESS_ASSIGN_OR_RETURN(sizes.norm_first, config.Bool("norm_first", true));
  ESS_ASSIGN_OR_RETURN(sizes.activation, ReadFlaActivation(config, "hidden_act", "sqrelu"));
  return sizes;
}

Distribution LowRankStart() {
  const auto fill = [](const RandomNumbers& random, at::Tensor& weight) {
    const double widening =
        static_cast<double>(weight.size(1)) / static_cast<double>(weight.size(0));
    Orthogonal(0.1 * std::sqrt(std::max(widening, 1.0))).fill(random, weight);
  };
  return {.fill = fill, .scratch_bytes = Orthogonal(1).scratch_bytes};
}

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeRwkvDecoder(
    const std::string& model_type, const RwkvSizes& sizes, TensorSource& tensors,
    const std::string& device, TakeRwkvMixer take_mixer, TakeRwkvFeedForward take_feed_forward) {
  ESS_ASSIGN_OR_RETURN(auto decoder,
                       RwkvDecoder::Create(sizes, tensors, take_mixer, take_feed_forward));
  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = sizes.vocabulary_size;
  description.max_positions = 0;  // A recurrence has no limit.
  description.hidden_size = sizes.hidden_size;
  description.mixers = decoder->Describe();
  return std::make_unique<DecoderModel>(std::move(description), sizes.layer_count,
                                        std::move(decoder));
}

}  // namespace ess::models
