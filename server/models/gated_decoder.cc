#include "server/models/gated_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct GatedLayer {
  RmsNorm attention_norm;
  Linear query, key, value, output;
  RmsNorm query_norm, key_norm;  // Of one head, where the config has them.
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
        layer_(fmt::format("layers.{}.", layer_index)) {}

  absl::StatusOr<GatedLayer> Take() {
    GatedLayer layer;
    ESS_ASSIGN_OR_RETURN(layer.attention_norm, Norm("input_layernorm", config_.hidden_size));
    ESS_RETURN_IF_ERROR(TakeAttention(layer));
    ESS_RETURN_IF_ERROR(has_experts_ ? TakeExperts(layer) : TakeFeedForward(layer.feed_forward));
    if (!config_.output_norms) {
      ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm,
                           Norm("post_attention_layernorm", config_.hidden_size));
      return layer;
    }
    ESS_ASSIGN_OR_RETURN(layer.attention_output_norm,
                         Norm("post_attention_layernorm", config_.hidden_size));
    ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm,
                         Norm("pre_feedforward_layernorm", config_.hidden_size));
    ESS_ASSIGN_OR_RETURN(layer.feed_forward_output_norm,
                         Norm("post_feedforward_layernorm", config_.hidden_size));
    return layer;
  }

 private:
  absl::StatusOr<RmsNorm> Norm(const std::string& name, int64_t width) {
    return TakeRmsNorm(tensors_, layer_ + name, width, config_.norm_epsilon, config_.norm_kind);
  }

  absl::Status TakeAttention(GatedLayer& layer) {
    const int64_t width = config_.hidden_size;
    const int64_t query_width = config_.head_count * config_.head_dim;
    const int64_t key_width = config_.key_value_head_count * config_.head_dim;
    const std::string attention = layer_ + "self_attn.";
    const bool bias = config_.query_key_value_bias;
    if (config_.fused_projections) {
      ESS_RETURN_IF_ERROR(TakeRows(attention + "qkv_proj", bias,
                                   {query_width, key_width, key_width},
                                   {&layer.query, &layer.key, &layer.value}));
    } else {
      ESS_ASSIGN_OR_RETURN(layer.query,
                           TakeLinear(tensors_, attention + "q_proj", query_width, width, bias));
      ESS_ASSIGN_OR_RETURN(layer.key,
                           TakeLinear(tensors_, attention + "k_proj", key_width, width, bias));
      ESS_ASSIGN_OR_RETURN(layer.value,
                           TakeLinear(tensors_, attention + "v_proj", key_width, width, bias));
    }
    ESS_ASSIGN_OR_RETURN(layer.output, TakeLinear(tensors_, attention + "o_proj", width,
                                                  query_width, config_.attention_output_bias));
    if (!config_.query_key_norm) return absl::OkStatus();
    ESS_ASSIGN_OR_RETURN(layer.query_norm, Norm("self_attn.q_norm", config_.head_dim));
    ESS_ASSIGN_OR_RETURN(layer.key_norm, Norm("self_attn.k_norm", config_.head_dim));
    return absl::OkStatus();
  }

  absl::Status TakeExperts(GatedLayer& layer) {
    const ExpertsConfig& experts = *config_.experts;
    const std::string module = layer_ + std::string(experts.module);
    MixtureOfExperts& mixture = layer.experts.emplace();
    mixture.chosen = experts.chosen;
    mixture.normalized = experts.normalized;
    ESS_ASSIGN_OR_RETURN(mixture.router, TakeLinear(tensors_, module + "gate", experts.count,
                                                    config_.hidden_size, /*bias=*/false));
    for (int64_t e = 0; e < experts.count; ++e) {
      const auto take = [&](std::string_view name, int64_t outputs, int64_t inputs) {
        return TakeLinear(tensors_, fmt::format("{}experts.{}.{}", module, e, name), outputs,
                          inputs, /*bias=*/false);
      };
      GatedFeedForward& expert = mixture.experts.emplace_back();
      expert.activation = config_.activation;
      const int64_t inner = experts.intermediate_size;
      ESS_ASSIGN_OR_RETURN(expert.gate, take(experts.gate, inner, config_.hidden_size));
      ESS_ASSIGN_OR_RETURN(expert.up, take(experts.up, inner, config_.hidden_size));
      ESS_ASSIGN_OR_RETURN(expert.down, take(experts.down, config_.hidden_size, inner));
    }
    return absl::OkStatus();
  }

  absl::Status TakeFeedForward(GatedFeedForward& layer) {
    layer.activation = config_.activation;
    const int64_t width = config_.hidden_size;
    const int64_t inner = config_.intermediate_size;
    const std::string feed_forward = layer_ + "mlp.";
    const bool bias = config_.feed_forward_bias;
    if (config_.fused_projections) {
      ESS_RETURN_IF_ERROR(
          TakeRows(feed_forward + "gate_up_proj", bias, {inner, inner}, {&layer.gate, &layer.up}));
    } else {
      ESS_ASSIGN_OR_RETURN(layer.gate,
                           TakeLinear(tensors_, feed_forward + "gate_proj", inner, width, bias));
      ESS_ASSIGN_OR_RETURN(layer.up,
                           TakeLinear(tensors_, feed_forward + "up_proj", inner, width, bias));
    }
    ESS_ASSIGN_OR_RETURN(layer.down,
                         TakeLinear(tensors_, feed_forward + "down_proj", width, inner, bias));
    return absl::OkStatus();
  }

  // One tensor whose rows are several projections, one after the other.
  absl::Status TakeRows(const std::string& name, bool bias, std::vector<int64_t> row_counts,
                        const std::vector<Linear*>& parts) {
    int64_t rows = 0;
    for (const int64_t count : row_counts) rows += count;
    ESS_ASSIGN_OR_RETURN(const Linear all,
                         TakeLinear(tensors_, name, rows, config_.hidden_size, bias));
    int64_t first = 0;
    for (size_t part = 0; part < parts.size(); ++part) {
      *parts[part] = all.Rows(first, row_counts[part]);
      first += row_counts[part];
    }
    return absl::OkStatus();
  }

  TensorSource& tensors_;
  const GatedDecoderConfig& config_;
  const bool has_experts_;
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
    state.rotary = MakeRotaryTable(config_.rotary, length, embedding_);
    state.window_rotary = config_.window_rotary.has_value()
                              ? MakeRotaryTable(*config_.window_rotary, length, embedding_)
                              : state.rotary;
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const GatedLayer& layer = layers_[static_cast<size_t>(layer_index)];
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, Attend(layer, layer_index, state, pass));
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

  // [L, D] => [L, H d]
  absl::StatusOr<at::Tensor> Attend(const GatedLayer& layer, int64_t layer_index,
                                    const PromptState& state, ForwardPass& pass) const {
    const at::Tensor x = layer.attention_norm(state.hidden);
    auto heads = [&](const Linear& projection) {  // [L, D] => [L, heads, d]
      return projection(x).view({x.size(0), -1, config_.head_dim});
    };
    at::Tensor queries = heads(layer.query);
    at::Tensor keys = heads(layer.key);
    if (config_.query_key_norm) {
      queries = layer.query_norm(queries);
      keys = layer.key_norm(keys);
    }
    const int64_t window = config_.windows[static_cast<size_t>(layer_index)];
    const RotaryTable& rotary = window > 0 ? state.window_rotary : state.rotary;
    const AttentionInputs inputs = {.queries = RotateHeads(queries, rotary),
                                    .keys = RotateHeads(keys, rotary),
                                    .values = heads(layer.value).transpose(0, 1),
                                    .scale = config_.attention_scale,
                                    .soft_cap = config_.attention_soft_cap,
                                    .window = window};
    return CausalAttention(inputs, /*mixer=*/layer_index, pass);
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
  description.mixers = AttentionMixers(config.windows, config.head_count, config.head_dim);
  return std::make_unique<DecoderModel>(std::move(description), config.layer_count,
                                        std::move(decoder));
}

}  // namespace ess::models
