#include "server/models/gpt2.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' GPT2Config, which also accepts the names that others use.
struct Gpt2Config {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // I
  int64_t layer_count = 0;
  int64_t head_count = 0;  // H
  int64_t max_positions = 0;
  double norm_epsilon = 0;
  ActivationInPlace activation = nullptr;
  bool scale_by_head_dim = true;
  bool scale_by_inverse_layer = false;

  int64_t head_dim() const { return hidden_size / head_count; }

  // Factor of Q K^T in this layer.
  double AttentionScale(int64_t layer_index) const {
    double scale = scale_by_head_dim ? 1 / std::sqrt(static_cast<double>(head_dim())) : 1;
    if (scale_by_inverse_layer) scale /= static_cast<double>(layer_index + 1);
    return scale;
  }
};

absl::StatusOr<Gpt2Config> ReadGpt2Config(const ConfigReader& config) {
  Gpt2Config gpt2;
  ESS_ASSIGN_OR_RETURN(gpt2.vocabulary_size, config.Size("vocab_size", 50257));
  ESS_ASSIGN_OR_RETURN(gpt2.hidden_size, config.Size("n_embd", "hidden_size", 768));
  ESS_ASSIGN_OR_RETURN(gpt2.layer_count, config.Size("n_layer", "num_hidden_layers", 12));
  ESS_ASSIGN_OR_RETURN(gpt2.head_count, config.Size("n_head", "num_attention_heads", 12));
  ESS_ASSIGN_OR_RETURN(gpt2.max_positions,
                       config.Size("n_positions", "max_position_embeddings", 1024));
  if (gpt2.hidden_size % gpt2.head_count != 0) {
    return ConfigContradiction(fmt::format("n_embd is {}, not a multiple of n_head = {}",
                                           gpt2.hidden_size, gpt2.head_count));
  }
  ESS_ASSIGN_OR_RETURN(gpt2.intermediate_size, config.Size("n_inner", 4 * gpt2.hidden_size));
  ESS_ASSIGN_OR_RETURN(gpt2.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("activation_function", "gelu_new", ActivationNames()));
  gpt2.activation = FindActivation(activation);
  ESS_ASSIGN_OR_RETURN(gpt2.scale_by_head_dim, config.Bool("scale_attn_weights", true));
  ESS_ASSIGN_OR_RETURN(gpt2.scale_by_inverse_layer,
                       config.Bool("scale_attn_by_inverse_layer_idx", false));
  ESS_RETURN_IF_ERROR(config.RefuseTrue("add_cross_attention"));
  return gpt2;
}

struct Gpt2Layer {
  LayerNorm attention_norm;
  Linear query_key_value;  // Outputs: queries, keys, values, each heads in order.
  Linear attention_output;
  LayerNorm feed_forward_norm;
  Linear up, down;
};

absl::StatusOr<Gpt2Layer> TakeGpt2Layer(TensorSource& tensors, const Gpt2Config& gpt2,
                                        int64_t layer_index) {
  const int64_t width = gpt2.hidden_size;
  const std::string layer = fmt::format("h.{}.", layer_index);
  auto take_linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    return TakeLinear(tensors, layer + name, outputs, inputs, /*bias=*/true,
                      LinearLayout::kInputsByOutputs);
  };
  auto take_norm = [&](const std::string& name) {
    return TakeLayerNorm(tensors, layer + name, width, gpt2.norm_epsilon);
  };

  Gpt2Layer weights;
  ESS_ASSIGN_OR_RETURN(weights.attention_norm, take_norm("ln_1"));
  ESS_ASSIGN_OR_RETURN(weights.query_key_value, take_linear("attn.c_attn", 3 * width, width));
  ESS_ASSIGN_OR_RETURN(weights.attention_output, take_linear("attn.c_proj", width, width));
  ESS_ASSIGN_OR_RETURN(weights.feed_forward_norm, take_norm("ln_2"));
  ESS_ASSIGN_OR_RETURN(weights.up, take_linear("mlp.c_fc", gpt2.intermediate_size, width));
  ESS_ASSIGN_OR_RETURN(weights.down, take_linear("mlp.c_proj", width, gpt2.intermediate_size));
  return weights;
}

class Gpt2Decoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<Gpt2Decoder>> Create(const Gpt2Config& config,
                                                             TensorSource& tensors) {
    auto decoder = std::make_unique<Gpt2Decoder>();
    decoder->config_ = config;
    const int64_t width = config.hidden_size;
    ESS_ASSIGN_OR_RETURN(decoder->token_embedding_,
                         tensors.Take("wte.weight", {config.vocabulary_size, width}));
    ESS_ASSIGN_OR_RETURN(decoder->position_embedding_,
                         tensors.Take("wpe.weight", {config.max_positions, width}));
    for (int64_t layer = 0; layer < config.layer_count; ++layer) {
      ESS_ASSIGN_OR_RETURN(Gpt2Layer weights, TakeGpt2Layer(tensors, config, layer));
      decoder->layers_.push_back(std::move(weights));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_,
                         TakeLayerNorm(tensors, "ln_f", width, config.norm_epsilon));
    // Tied to the embedding where the checkpoint has none, whatever tie_word_embeddings says.
    decoder->head_.weight = decoder->token_embedding_;
    if (tensors.Has("lm_head.weight")) {
      ESS_ASSIGN_OR_RETURN(decoder->head_.weight,
                           tensors.Take("lm_head.weight", {config.vocabulary_size, width}));
    }
    return decoder;
  }

  PromptState Embed(const at::Tensor& token_ids) const override {
    at::Tensor hidden = at::embedding(token_embedding_, token_ids);
    hidden.add_(position_embedding_.narrow(0, 0, token_ids.size(0)));
    return {.hidden = std::move(hidden), .rotary = {}};
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const Gpt2Layer& layer = layers_[static_cast<size_t>(layer_index)];
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, Attend(layer, layer_index, state.hidden, pass));
    if (pass.EndsAfter(layer_index)) return absl::OkStatus();
    layer.attention_output.AddToInPlace(state.hidden, mixed);

    at::Tensor inner = layer.up(layer.feed_forward_norm(state.hidden));  // [L, I]
    config_.activation(inner);
    layer.down.AddToInPlace(state.hidden, inner);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(norm_(hidden)); }

 private:
  // [L, D] => [L, D]
  absl::StatusOr<at::Tensor> Attend(const Gpt2Layer& layer, int64_t layer_index,
                                    const at::Tensor& hidden, ForwardPass& pass) const {
    // [L, 3 D] => [3, H, L, d]
    const at::Tensor projected = layer.query_key_value(layer.attention_norm(hidden))
                                     .view({hidden.size(0), 3, config_.head_count, -1})
                                     .permute({1, 2, 0, 3});
    const AttentionInputs inputs = {.queries = projected.select(0, 0).contiguous(),
                                    .keys = projected.select(0, 1),
                                    .values = projected.select(0, 2),
                                    .scale = config_.AttentionScale(layer_index)};
    return CausalAttention(inputs, /*mixer=*/layer_index, pass);
  }

  Gpt2Config config_;
  at::Tensor token_embedding_;     // [V, D]
  at::Tensor position_embedding_;  // [max_positions, D]
  std::vector<Gpt2Layer> layers_;
  LayerNorm norm_;
  Linear head_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateGpt2(const ConfigReader& config,
                                                          TensorSource& tensors,
                                                          const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Gpt2Config gpt2, ReadGpt2Config(config));
  ESS_ASSIGN_OR_RETURN(auto decoder, Gpt2Decoder::Create(gpt2, tensors));
  ModelDescription description = DescribeModel("gpt2", device, tensors.Totals());
  description.vocabulary_size = gpt2.vocabulary_size;
  description.max_positions = gpt2.max_positions;
  description.hidden_size = gpt2.hidden_size;
  description.mixers =
      AttentionMixers(FullAttention(gpt2.layer_count), gpt2.head_count, gpt2.head_dim());
  return std::make_unique<DecoderModel>(std::move(description), gpt2.layer_count,
                                        std::move(decoder));
}

nlohmann::json TinyGpt2Config() {
  return {{"model_type", "gpt2"}, {"vocab_size", 31},
          {"n_embd", 16},         {"n_layer", 3},
          {"n_head", 4},          {"n_inner", 24},
          {"n_positions", 64},    {"scale_attn_by_inverse_layer_idx", true}};
}

}  // namespace

Architecture Gpt2Architecture() {
  return {.model_type = "gpt2",
          .base_prefixes = {"transformer."},
          .ignored_suffixes = {".attn.bias", ".attn.masked_bias"},
          .create = CreateGpt2,
          .tiny_config = TinyGpt2Config};
}

}  // namespace ess::models
