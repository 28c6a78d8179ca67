#include "server/models/gpt_neox.h"

#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layer_norm_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' GPTNeoXConfig.
struct NeoxConfig {
  LayerNormDecoderConfig decoder;
  bool attention_bias = true;
};

absl::StatusOr<NeoxConfig> ReadNeoxConfig(const ConfigReader& config) {
  NeoxConfig neox;
  ESS_ASSIGN_OR_RETURN(neox.decoder, ReadLayerNormDecoder(config, {.vocabulary_size = 50432,
                                                                   .hidden_size = 6144,
                                                                   .layer_count = 44,
                                                                   .head_count = 64,
                                                                   .max_positions = 2048,
                                                                   .activation = "gelu"}));
  LayerNormDecoderConfig& decoder = neox.decoder;
  decoder.names = {.embedding = "embed_in", .norm = "final_layer_norm", .head = "embed_out"};
  ESS_ASSIGN_OR_RETURN(decoder.parallel_residual, config.Bool("use_parallel_residual", true));
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions,
                                         {.theta = "rotary_emb_base",
                                          .fraction = "rotary_pct",
                                          .default_fraction = 0.25,
                                          .may_be_partial = true}));
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size, config.Size("intermediate_size", 24576));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon, config.Number("layer_norm_eps", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(neox.attention_bias, config.Bool("attention_bias", true));
  return neox;
}

absl::StatusOr<LayerNormLayer> TakeNeoxLayer(TensorSource& tensors, const NeoxConfig& neox,
                                             int64_t layer_index) {
  const int64_t width = neox.decoder.hidden_size;
  const int64_t inner = neox.decoder.intermediate_size;
  const std::string layer = fmt::format("layers.{}.", layer_index);
  LayerNormLayer weights;
  ESS_ASSIGN_OR_RETURN(weights.attention_norm, TakeLayerNorm(tensors, layer + "input_layernorm",
                                                             width, neox.decoder.norm_epsilon));
  ESS_ASSIGN_OR_RETURN(
      weights.feed_forward_norm,
      TakeLayerNorm(tensors, layer + "post_attention_layernorm", width, neox.decoder.norm_epsilon));
  ESS_ASSIGN_OR_RETURN(const Linear fused, TakeLinear(tensors, layer + "attention.query_key_value",
                                                      3 * width, width, neox.attention_bias));
  // Query, key and value of one head after the other.
  SplitGroupedRows(fused, neox.decoder.head_count, neox.decoder.head_dim, weights);
  ESS_ASSIGN_OR_RETURN(weights.output, TakeLinear(tensors, layer + "attention.dense", width, width,
                                                  neox.attention_bias));
  ESS_ASSIGN_OR_RETURN(weights.up,
                       TakeLinear(tensors, layer + "mlp.dense_h_to_4h", inner, width, true));
  ESS_ASSIGN_OR_RETURN(weights.down,
                       TakeLinear(tensors, layer + "mlp.dense_4h_to_h", width, inner, true));
  return weights;
}

nlohmann::json TinyGptNeoxConfig() {
  return {{"model_type", "gpt_neox"},     {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},      {"num_hidden_layers", 3}, {"num_attention_heads", 2},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture GptNeoxArchitecture() {
  return LayerNormArchitecture<ReadNeoxConfig, TakeNeoxLayer>(
      {.model_type = "gpt_neox",
       .base_prefixes = {"gpt_neox."},
       .ignored_suffixes = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"},
       .initial_weights =
           [](const ConfigReader& config) {
             return ReadInitialWeights(config, {.head = "embed_out"});
           },
       .tiny_config = TinyGptNeoxConfig});
}

}  // namespace ess::models
