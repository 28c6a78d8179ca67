#include "server/models/phi.h"

#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layer_norm_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' PhiConfig.
struct PhiConfig {
  LayerNormDecoderConfig decoder;
  int64_t key_value_head_count = 0;  // G
  bool query_key_norm = false;
};

absl::StatusOr<PhiConfig> ReadPhiConfig(const ConfigReader& config) {
  PhiConfig phi;
  ESS_ASSIGN_OR_RETURN(phi.decoder, ReadLayerNormDecoder(config, {.vocabulary_size = 51200,
                                                                  .hidden_size = 2048,
                                                                  .layer_count = 24,
                                                                  .head_count = 32,
                                                                  .max_positions = 2048,
                                                                  .activation = "gelu_new"}));
  LayerNormDecoderConfig& decoder = phi.decoder;
  decoder.names = {.embedding = "embed_tokens", .norm = "final_layernorm", .head_bias = true};
  ESS_ASSIGN_OR_RETURN(phi.key_value_head_count,
                       config.Size("num_key_value_heads", decoder.head_count));
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_attention_heads", decoder.head_count,
                                           "num_key_value_heads", phi.key_value_head_count));
  decoder.parallel_residual = true;
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions,
                                         {.default_fraction = 0.5, .may_be_partial = true}));
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size, config.Size("intermediate_size", 8192));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon, config.Number("layer_norm_eps", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(phi.query_key_norm, config.Bool("qk_layernorm", false));
  return phi;
}

absl::StatusOr<LayerNormLayer> TakePhiLayer(TensorSource& tensors, const PhiConfig& phi,
                                            int64_t layer_index) {
  const int64_t width = phi.decoder.hidden_size;
  const int64_t head_dim = phi.decoder.head_dim;
  const int64_t key_width = phi.key_value_head_count * head_dim;
  const std::string layer = fmt::format("layers.{}.", layer_index);
  auto take_linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    return TakeLinear(tensors, layer + name, outputs, inputs, /*bias=*/true);
  };
  auto take_norm = [&](const std::string& name, int64_t size) {
    return TakeLayerNorm(tensors, layer + name, size, phi.decoder.norm_epsilon);
  };
  LayerNormLayer weights;
  ESS_ASSIGN_OR_RETURN(weights.attention_norm, take_norm("input_layernorm", width));
  ESS_ASSIGN_OR_RETURN(weights.query, take_linear("self_attn.q_proj", width, width));
  ESS_ASSIGN_OR_RETURN(weights.key, take_linear("self_attn.k_proj", key_width, width));
  ESS_ASSIGN_OR_RETURN(weights.value, take_linear("self_attn.v_proj", key_width, width));
  ESS_ASSIGN_OR_RETURN(weights.output, take_linear("self_attn.dense", width, width));
  if (phi.query_key_norm) {
    ESS_ASSIGN_OR_RETURN(weights.query_norm, take_norm("self_attn.q_layernorm", head_dim));
    ESS_ASSIGN_OR_RETURN(weights.key_norm, take_norm("self_attn.k_layernorm", head_dim));
  }
  ESS_ASSIGN_OR_RETURN(weights.up, take_linear("mlp.fc1", phi.decoder.intermediate_size, width));
  ESS_ASSIGN_OR_RETURN(weights.down, take_linear("mlp.fc2", width, phi.decoder.intermediate_size));
  return weights;
}

// Shared key heads, and norms of queries and keys.
nlohmann::json TinyPhiConfig() {
  return {{"model_type", "phi"},      {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"qk_layernorm", true},   {"max_position_embeddings", 64}};
}

}  // namespace

Architecture PhiArchitecture() {
  return LayerNormArchitecture<ReadPhiConfig, TakePhiLayer>(
      {.model_type = "phi",
       .base_prefixes = {"model."},
       .ignored_suffixes = {".rotary_emb.inv_freq"},
       .initial_weights =
           [](const ConfigReader& config) {
             return ReadInitialWeights(config, {.padded_embedding = "embed_tokens"});
           },
       .tiny_config = TinyPhiConfig});
}

}  // namespace ess::models
