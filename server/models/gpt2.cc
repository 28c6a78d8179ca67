#include "server/models/gpt2.h"

#include <cmath>
#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layer_norm_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' GPT2Config, which also accepts the names that others use.
struct Gpt2Config {
  LayerNormDecoderConfig decoder;
};

// Factors of Q K^T.
absl::StatusOr<std::vector<double>> ReadScales(const ConfigReader& config, int64_t layer_count,
                                               int64_t head_dim) {
  ESS_ASSIGN_OR_RETURN(const bool by_head_dim, config.Bool("scale_attn_weights", true));
  ESS_ASSIGN_OR_RETURN(const bool by_inverse_layer,
                       config.Bool("scale_attn_by_inverse_layer_idx", false));
  std::vector<double> scales = UsualAttentionScales(layer_count, by_head_dim ? head_dim : 1);
  for (size_t layer = 0; by_inverse_layer && layer < scales.size(); ++layer) {
    scales[layer] /= static_cast<double>(layer + 1);
  }
  return scales;
}

absl::StatusOr<Gpt2Config> ReadGpt2Config(const ConfigReader& config) {
  Gpt2Config gpt2;
  LayerNormDecoderConfig& decoder = gpt2.decoder;
  decoder.names = {.embedding = "wte", .position_embedding = "wpe", .norm = "ln_f"};
  ESS_ASSIGN_OR_RETURN(decoder.vocabulary_size, config.Size("vocab_size", 50257));
  ESS_ASSIGN_OR_RETURN(decoder.hidden_size, config.Size("n_embd", "hidden_size", 768));
  ESS_ASSIGN_OR_RETURN(decoder.layer_count,
                       config.Size("n_layer", "num_hidden_layers", 12, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(decoder.head_count, config.Size("n_head", "num_attention_heads", 12));
  ESS_ASSIGN_OR_RETURN(decoder.max_positions,
                       config.Size("n_positions", "max_position_embeddings", 1024));
  ESS_ASSIGN_OR_RETURN(decoder.head_dim, SharedHeadDim(config, decoder, "n_embd", "n_head"));
  ESS_ASSIGN_OR_RETURN(decoder.attention_scales,
                       ReadScales(config, decoder.layer_count, decoder.head_dim));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("activation_function", "gelu_new", ActivationNames()));
  decoder.activation = FindActivation(activation);
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size, config.Size("n_inner", 4 * decoder.hidden_size));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_RETURN_IF_ERROR(config.RefuseTrue("add_cross_attention"));
  return gpt2;
}

absl::StatusOr<LayerNormLayer> TakeGpt2Layer(TensorSource& tensors, const Gpt2Config& gpt2,
                                             int64_t layer_index) {
  const int64_t width = gpt2.decoder.hidden_size;
  const std::string layer = fmt::format("h.{}.", layer_index);
  auto take_linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    return TakeLinear(tensors, layer + name, outputs, inputs, /*bias=*/true,
                      LinearLayout::kInputsByOutputs);
  };
  auto take_norm = [&](const std::string& name) {
    return TakeLayerNorm(tensors, layer + name, width, gpt2.decoder.norm_epsilon);
  };

  LayerNormLayer weights;
  ESS_ASSIGN_OR_RETURN(weights.attention_norm, take_norm("ln_1"));
  ESS_ASSIGN_OR_RETURN(const Linear fused, take_linear("attn.c_attn", 3 * width, width));
  // Queries, keys, values, each heads in order.
  weights.query = fused.Rows(0, width);
  weights.key = fused.Rows(width, width);
  weights.value = fused.Rows(2 * width, width);
  ESS_ASSIGN_OR_RETURN(weights.output, take_linear("attn.c_proj", width, width));
  ESS_ASSIGN_OR_RETURN(weights.feed_forward_norm, take_norm("ln_2"));
  ESS_ASSIGN_OR_RETURN(weights.up, take_linear("mlp.c_fc", gpt2.decoder.intermediate_size, width));
  ESS_ASSIGN_OR_RETURN(weights.down,
                       take_linear("mlp.c_proj", width, gpt2.decoder.intermediate_size));
  return weights;
}

// What goes into the residual stream starts smaller the more layers add to it: Radford et al. 2019.
absl::StatusOr<InitialWeights> Gpt2InitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(InitialWeights weights, ReadInitialWeights(config, {.tied_head = true}));
  ESS_ASSIGN_OR_RETURN(const int64_t layers,
                       config.Size("n_layer", "num_hidden_layers", 12, kMaxLayers));
  const double scale = 1 / std::sqrt(2 * static_cast<double>(layers));
  weights.rules.push_back(
      {.names = "*.c_proj.weight", .distribution = Normal(weights.standard_deviation * scale)});
  return weights;
}

nlohmann::json TinyGpt2Config() {
  return {{"model_type", "gpt2"}, {"vocab_size", 31},
          {"n_embd", 16},         {"n_layer", 3},
          {"n_head", 4},          {"n_inner", 24},
          {"n_positions", 64},    {"scale_attn_by_inverse_layer_idx", true}};
}

}  // namespace

Architecture Gpt2Architecture() {
  return LayerNormArchitecture<ReadGpt2Config, TakeGpt2Layer>(
      {.model_type = "gpt2",
       .base_prefixes = {"transformer."},
       .ignored_suffixes = {".attn.bias", ".attn.masked_bias"},
       .initial_weights = Gpt2InitialWeights,
       .tiny_config = TinyGpt2Config});
}

}  // namespace ess::models
