#include "server/models/gated_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/attention_layer.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/grouped_query_attention.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct GatedLayer {
  RmsNorm attention_norm;
  std::unique_ptr<AttentionLayer> attention;
  Linear output;
  RmsNorm attention_output_norm;
  RmsNorm feed_forward_norm;
  GatedFeedForward feed_forward;
  std::optional<MixtureOfExperts> experts;  // Instead.
  RmsNorm feed_forward_output_norm;
};

// Takes the tensors of one layer.
class LayerTaker {
 public:
  LayerTaker(TensorSource& tensors, const GatedDecoderConfig& config, int64_t layer_index)
      : tensors_(tensors),
        config_(config),
        has_experts_(config.experts && config.experts->layers[static_cast<size_t>(layer_index)]),
        window_(config.windows[static_cast<size_t>(layer_index)]),
        layer_(fmt::format("layers.{}.", layer_index)) {}

  absl::StatusOr<GatedLayer> Take() {
    GatedLayer layer;
    ESS_ASSIGN_OR_RETURN(layer.attention_norm, Norm("input_layernorm"));
    ESS_ASSIGN_OR_RETURN(layer.attention, TakeAttention());
    ESS_ASSIGN_OR_RETURN(
        layer.output,
        TakeLinear(tensors_, layer_ + "self_attn.o_proj", config_.hidden_size,
                   config_.head_count * config_.value_dim(), config_.attention_output_bias));
    ESS_RETURN_IF_ERROR(TakeFeedForward(layer));
    if (!config_.output_norms) {
      ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, Norm("post_attention_layernorm"));
      return layer;
    }
    ESS_ASSIGN_OR_RETURN(layer.attention_output_norm, Norm("post_attention_layernorm"));
    ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, Norm("pre_feedforward_layernorm"));
    ESS_ASSIGN_OR_RETURN(layer.feed_forward_output_norm, Norm("post_feedforward_layernorm"));
    return layer;
  }

 private:
  absl::StatusOr<RmsNorm> Norm(const std::string& name) {
    return TakeRmsNorm(tensors_, layer_ + name, config_.hidden_size, config_.norm_epsilon,
                       config_.norm_kind);
  }

  absl::StatusOr<std::unique_ptr<AttentionLayer>> TakeAttention() {
    const std::string module = layer_ + "self_attn.";
    if (config_.latent) return TakeLatentAttention(tensors_, module, *config_.latent);
    GroupedQueryConfig heads = HeadsOf(config_);
    heads.window = window_;
    return TakeGroupedQueryAttention(tensors_, module, heads);
  }

  absl::Status TakeFeedForward(GatedLayer& layer) {
    if (has_experts_) {
      ESS_ASSIGN_OR_RETURN(layer.experts, TakeExperts(tensors_, layer_, *config_.experts,
                                                      config_.hidden_size, config_.activation));
      return absl::OkStatus();
    }
    ESS_ASSIGN_OR_RETURN(layer.feed_forward,
                         TakeGatedFeedForward(tensors_, layer_ + "mlp.",
                                              {.width = config_.hidden_size,
                                               .inner = config_.intermediate_size,
                                               .bias = config_.feed_forward_bias,
                                               .activation = config_.activation,
                                               .fused = config_.fused_projections}));
    return absl::OkStatus();
  }

  TensorSource& tensors_;
  const GatedDecoderConfig& config_;
  const bool has_experts_;
  const int64_t window_;
  const std::string layer_;
};

// Capped in place: cap tanh(x / cap).
void SoftCap(at::Tensor& x, double cap) { x.div_(cap).tanh_().mul_(cap); }

class GatedDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<GatedDecoder>> Create(const GatedDecoderConfig& config,
                                                              TensorSource& tensors) {
    auto decoder = std::make_unique<GatedDecoder>();
    decoder->config_ = config;
    ESS_ASSIGN_OR_RETURN(
        decoder->embedding_,
        tensors.Take("embed_tokens.weight", {config.vocabulary_size, config.hidden_size}));
    for (int64_t layer = 0; layer < config.layer_count; ++layer) {
      ESS_ASSIGN_OR_RETURN(GatedLayer weights, LayerTaker(tensors, config, layer).Take());
      decoder->layers_.push_back(std::move(weights));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_, TakeRmsNorm(tensors, "norm", config.hidden_size,
                                                     config.norm_epsilon, config.norm_kind));
    ESS_ASSIGN_OR_RETURN(decoder->head_, TakeHead(tensors, "lm_head", decoder->embedding_));
    for (int64_t layer = 0; layer < config.unused_layer_count; ++layer) {
      tensors.IgnorePrefix(fmt::format("layers.{}.", config.layer_count + layer));
    }
    return decoder;
  }

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    const int64_t length = embeddings.size(0);
    PromptState state;
    state.hidden = embeddings;
    if (config_.embedding_scale != 1) {
      state.hidden.mul_(at::scalar_tensor(config_.embedding_scale, state.hidden.options()));
    }
    state.rotary = MakeRotaryTable(config_.rotary, length, embedding_.device());
    state.window_rotary = config_.window_rotary.has_value()
                              ? MakeRotaryTable(*config_.window_rotary, length, embedding_.device())
                              : state.rotary;
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const GatedLayer& layer = layers_[static_cast<size_t>(layer_index)];
    const bool windowed = config_.windows[static_cast<size_t>(layer_index)] > 0;
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed,
                         layer.attention->Attend(layer.attention_norm(state.hidden),
                                                 windowed ? state.window_rotary : state.rotary,
                                                 /*mixer=*/layer_index, pass));
    if (pass.EndsAfter(layer_index)) return absl::OkStatus();
    Add(layer.output, mixed, layer.attention_output_norm, state.hidden);

    const at::Tensor x = layer.feed_forward_norm(state.hidden);
    if (layer.experts) {
      state.hidden.add_((*layer.experts)(x));
      return absl::OkStatus();
    }
    Add(layer.feed_forward.down, layer.feed_forward.Inner(x), layer.feed_forward_output_norm,
        state.hidden);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override {
    at::Tensor logits = head_(norm_(hidden));
    if (config_.logit_soft_cap > 0) SoftCap(logits, config_.logit_soft_cap);
    return logits;
  }

 private:
  void Add(const Linear& projection, const at::Tensor& x, const RmsNorm& norm,
           at::Tensor& hidden) const {
    if (config_.output_norms) {
      hidden.add_(norm(projection(x)));
    } else {
      projection.AddToInPlace(hidden, x);
    }
  }

  GatedDecoderConfig config_;
  at::Tensor embedding_;  // [V, D]
  std::vector<GatedLayer> layers_;
  RmsNorm norm_;
  Linear head_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeGatedDecoder(const std::string& model_type,
                                                                const GatedDecoderConfig& config,
                                                                TensorSource& tensors,
                                                                const std::string& device) {
  ESS_ASSIGN_OR_RETURN(auto decoder, GatedDecoder::Create(config, tensors));
  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = config.vocabulary_size;
  description.max_positions = config.rotary.PositionLimit();
  description.hidden_size = config.hidden_size;
  description.mixers = AttentionMixers(config.windows, config.head_count, config.value_dim());
  return std::make_unique<DecoderModel>(std::move(description), config.layer_count,
                                        std::move(decoder));
}

}  // namespace ess::models
