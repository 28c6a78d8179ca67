#include "server/models/layer_norm_decoder.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/alibi.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

class LayerNormDecoder final : public Decoder {
 public:
  explicit LayerNormDecoder(const LayerNormDecoderConfig& config) : config_(config) {}

  absl::Status Take(TensorSource& tensors, TakeLayerNormLayer take_layer) {
    const LayerNormDecoderNames& names = config_.names;
    const int64_t width = config_.hidden_size;
    const auto weight = [](std::string_view name) { return fmt::format("{}.weight", name); };
    ESS_ASSIGN_OR_RETURN(embedding_,
                         tensors.Take(weight(names.embedding), {config_.vocabulary_size, width}));
    if (!names.position_embedding.empty()) {
      ESS_ASSIGN_OR_RETURN(position_embedding_, tensors.Take(weight(names.position_embedding),
                                                             {config_.max_positions, width}));
    }
    for (int64_t layer = 0; layer < config_.layer_count; ++layer) {
      ESS_ASSIGN_OR_RETURN(LayerNormLayer taken, take_layer(layer));
      layers_.push_back(std::move(taken));
    }
    ESS_ASSIGN_OR_RETURN(
        norm_, TakeLayerNorm(tensors, std::string(names.norm), width, config_.norm_epsilon));
    ESS_ASSIGN_OR_RETURN(head_, TakeHead(tensors, std::string(names.head), embedding_));
    if (names.head_bias) {
      ESS_ASSIGN_OR_RETURN(
          head_.bias, tensors.Take(fmt::format("{}.bias", names.head), {config_.vocabulary_size}));
    }
    return absl::OkStatus();
  }

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    const int64_t length = embeddings.size(0);
    PromptState state;
    state.hidden = embeddings;
    if (position_embedding_.defined()) {
      state.hidden.add_(position_embedding_.narrow(0, 0, length));
    }
    if (config_.rotary)
      state.rotary = MakeRotaryTable(*config_.rotary, length, embedding_.device());
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const LayerNormLayer& layer = layers_[static_cast<size_t>(layer_index)];
    const at::Tensor x = layer.attention_norm(state.hidden);
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, Attend(layer, layer_index, x, state, pass));
    if (pass.EndsAfter(layer_index)) return absl::OkStatus();
    const auto feed_forward = [&](const at::Tensor& input) {
      at::Tensor inner = layer.up(input);  // [L, I]
      config_.activation(inner);
      return inner;
    };
    if (config_.parallel_residual) {
      const at::Tensor inner =
          feed_forward(layer.feed_forward_norm ? (*layer.feed_forward_norm)(state.hidden) : x);
      layer.output.AddToInPlace(state.hidden, mixed);
      layer.down.AddToInPlace(state.hidden, inner);
      return absl::OkStatus();
    }
    layer.output.AddToInPlace(state.hidden, mixed);
    layer.down.AddToInPlace(state.hidden, feed_forward((*layer.feed_forward_norm)(state.hidden)));
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(norm_(hidden)); }

 private:
  // x [L, D] => [L, H d]
  absl::StatusOr<at::Tensor> Attend(const LayerNormLayer& layer, int64_t layer_index,
                                    const at::Tensor& x, const PromptState& state,
                                    ForwardPass& pass) const {
    const at::Tensor wide = x.to(at::kFloat);  // Of what attention scores.
    auto heads = [&](const Linear& projection, const at::Tensor& from) {  // [L, D] => [L, heads, d]
      return projection(from).view({from.size(0), -1, config_.head_dim});
    };
    const auto place = [&](at::Tensor rows, const std::optional<LayerNorm>& norm) {
      if (norm) rows = (*norm)(rows);
      return config_.rotary ? RotateHeads(rows, state.rotary) : rows.transpose(0, 1).contiguous();
    };
    AttentionInputs inputs = {.queries = place(heads(layer.query, wide), layer.query_norm),
                              .keys = place(heads(layer.key, wide), layer.key_norm),
                              .values = heads(layer.value, x).transpose(0, 1),
                              .scale = config_.attention_scales[static_cast<size_t>(layer_index)]};
    if (config_.alibi) {
      const at::Tensor like = at::empty({0}, x.options().dtype(at::kFloat));
      inputs.key_bias = AlibiBias(config_.head_count, x.size(0), like).mul_(inputs.scale);
    }
    return CausalAttention(inputs, /*mixer=*/layer_index, pass);
  }

  const LayerNormDecoderConfig config_;
  at::Tensor embedding_;           // [V, D]
  at::Tensor position_embedding_;  // [max_positions, D], or undefined.
  std::vector<LayerNormLayer> layers_;
  LayerNorm norm_;
  Linear head_;
};

}  // namespace

absl::StatusOr<LayerNormDecoderConfig> ReadLayerNormDecoder(
    const ConfigReader& config, const LayerNormDecoderDefaults& defaults) {
  LayerNormDecoderConfig decoder;
  ESS_ASSIGN_OR_RETURN(decoder.vocabulary_size,
                       config.Size("vocab_size", defaults.vocabulary_size));
  ESS_ASSIGN_OR_RETURN(decoder.hidden_size, config.Size("hidden_size", defaults.hidden_size));
  ESS_ASSIGN_OR_RETURN(decoder.layer_count,
                       config.Size("num_hidden_layers", defaults.layer_count, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(decoder.head_count, config.Size("num_attention_heads", defaults.head_count));
  ESS_ASSIGN_OR_RETURN(decoder.head_dim, SharedHeadDim(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.max_positions,
                       config.Size("max_position_embeddings", defaults.max_positions));
  ESS_ASSIGN_OR_RETURN(
      const std::string activation,
      config.Choice("hidden_act", std::string(defaults.activation), ActivationNames()));
  decoder.activation = FindActivation(activation);
  decoder.attention_scales = UsualAttentionScales(decoder.layer_count, decoder.head_dim);
  return decoder;
}

std::vector<double> UsualAttentionScales(int64_t layer_count, int64_t head_dim) {
  return std::vector<double>(static_cast<size_t>(layer_count),
                             1 / std::sqrt(static_cast<double>(head_dim)));
}

absl::StatusOr<int64_t> SharedHeadDim(const ConfigReader& config,
                                      const LayerNormDecoderConfig& decoder,
                                      std::string_view hidden_key, std::string_view heads_key) {
  ESS_RETURN_IF_ERROR(
      config.CheckMultiple(hidden_key, decoder.hidden_size, heads_key, decoder.head_count));
  return decoder.hidden_size / decoder.head_count;
}

void SplitGroupedRows(const Linear& fused, int64_t group_count, int64_t head_dim,
                      LayerNormLayer& layer) {
  const int64_t inputs = fused.weight.size(1);
  const at::Tensor weight = fused.weight.view({group_count, -1, head_dim, inputs});
  const int64_t queries = weight.size(1) - 2;
  const auto part = [&](int64_t first, int64_t count) {
    Linear linear{.weight = weight.narrow(1, first, count).reshape({-1, inputs}), .bias = {}};
    if (fused.bias.defined()) {
      linear.bias =
          fused.bias.view({group_count, -1, head_dim}).narrow(1, first, count).reshape({-1});
    }
    return linear;
  };
  layer.query = part(0, queries);
  layer.key = part(queries, 1);
  layer.value = part(queries + 1, 1);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeLayerNormDecoder(
    const std::string& model_type, const LayerNormDecoderConfig& config, TensorSource& tensors,
    const std::string& device, TakeLayerNormLayer take_layer) {
  auto decoder = std::make_unique<LayerNormDecoder>(config);
  ESS_RETURN_IF_ERROR(decoder->Take(tensors, take_layer));
  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = config.vocabulary_size;
  description.max_positions = config.rotary ? config.rotary->PositionLimit() : config.max_positions;
  description.hidden_size = config.hidden_size;
  description.mixers =
      AttentionMixers(FullAttention(config.layer_count), config.head_count, config.head_dim);
  return std::make_unique<DecoderModel>(std::move(description), config.layer_count,
                                        std::move(decoder));
}

}  // namespace ess::models
