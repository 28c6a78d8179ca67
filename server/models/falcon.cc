#include "server/models/falcon.h"

#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layer_norm_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' FalconConfig, and the names of its oldest files.
struct FalconConfig {
  LayerNormDecoderConfig decoder;
  int64_t key_value_head_count = 0;  // G, what the projection really has.
  bool bias = false;
  int64_t norm_count = 1;  // Of a layer; 2 are ln_attn and ln_mlp, or one after the other.
};

absl::Status ReadWiring(const ConfigReader& config, FalconConfig& falcon) {
  LayerNormDecoderConfig& decoder = falcon.decoder;
  ESS_ASSIGN_OR_RETURN(const bool new_layout, config.Bool("new_decoder_architecture", false));
  ESS_ASSIGN_OR_RETURN(const bool multi_query, config.Bool("multi_query", true));
  ESS_ASSIGN_OR_RETURN(falcon.key_value_head_count,
                       config.Size("num_kv_heads", "n_head_kv", decoder.head_count));
  if (!new_layout) falcon.key_value_head_count = multi_query ? 1 : decoder.head_count;
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_attention_heads", decoder.head_count,
                                           "num_kv_heads", falcon.key_value_head_count));
  ESS_ASSIGN_OR_RETURN(decoder.parallel_residual, config.Bool("parallel_attn", true));
  if (new_layout && !decoder.parallel_residual) {
    return config.Unsupported("parallel_attn", "true with new_decoder_architecture");
  }
  ESS_ASSIGN_OR_RETURN(falcon.norm_count,
                       config.Size("num_ln_in_parallel_attn", new_layout ? 2 : 1));
  if (falcon.norm_count > (new_layout ? 2 : 1)) {
    return config.Unsupported("num_ln_in_parallel_attn", "1, or 2 with new_decoder_architecture");
  }
  return absl::OkStatus();
}

absl::StatusOr<FalconConfig> ReadFalconConfig(const ConfigReader& config) {
  FalconConfig falcon;
  LayerNormDecoderConfig& decoder = falcon.decoder;
  decoder.names = {.embedding = "word_embeddings", .norm = "ln_f"};
  ESS_ASSIGN_OR_RETURN(decoder.vocabulary_size, config.Size("vocab_size", 65024));
  ESS_ASSIGN_OR_RETURN(decoder.hidden_size, config.Size("hidden_size", "n_embed", 4544));
  ESS_ASSIGN_OR_RETURN(decoder.layer_count,
                       config.Size("num_hidden_layers", "n_layer", 32, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(decoder.head_count, config.Size("num_attention_heads", "n_head", 71));
  ESS_ASSIGN_OR_RETURN(decoder.head_dim, SharedHeadDim(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.max_positions, config.Size("max_position_embeddings", 2048));
  ESS_RETURN_IF_ERROR(ReadWiring(config, falcon));
  decoder.attention_scales = UsualAttentionScales(decoder.layer_count, decoder.head_dim);
  ESS_ASSIGN_OR_RETURN(decoder.alibi, config.Bool("alibi", false));
  if (!decoder.alibi) {
    ESS_ASSIGN_OR_RETURN(decoder.rotary,
                         ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions));
  }
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("activation", "gelu", ActivationNames()));
  decoder.activation = FindActivation(activation);
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size,
                       config.Size("ffn_hidden_size", 4 * decoder.hidden_size));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(falcon.bias, config.Bool("bias", false));
  return falcon;
}

absl::Status TakeNorms(TensorSource& tensors, const FalconConfig& falcon, const std::string& layer,
                       LayerNormLayer& weights) {
  auto take = [&](const std::string& name) {
    return TakeLayerNorm(tensors, layer + name, falcon.decoder.hidden_size,
                         falcon.decoder.norm_epsilon);
  };
  if (falcon.norm_count == 2) {
    ESS_ASSIGN_OR_RETURN(weights.attention_norm, take("ln_attn"));
    ESS_ASSIGN_OR_RETURN(weights.feed_forward_norm, take("ln_mlp"));
    return absl::OkStatus();
  }
  ESS_ASSIGN_OR_RETURN(weights.attention_norm, take("input_layernorm"));
  if (falcon.decoder.parallel_residual) return absl::OkStatus();
  ESS_ASSIGN_OR_RETURN(weights.feed_forward_norm, take("post_attention_layernorm"));
  return absl::OkStatus();
}

absl::StatusOr<LayerNormLayer> TakeFalconLayer(TensorSource& tensors, const FalconConfig& falcon,
                                               int64_t layer_index) {
  const int64_t width = falcon.decoder.hidden_size;
  const int64_t rows =
      (falcon.decoder.head_count + 2 * falcon.key_value_head_count) * falcon.decoder.head_dim;
  const std::string layer = fmt::format("h.{}.", layer_index);
  auto take_linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    return TakeLinear(tensors, layer + name, outputs, inputs, falcon.bias);
  };
  LayerNormLayer weights;
  ESS_RETURN_IF_ERROR(TakeNorms(tensors, falcon, layer, weights));
  ESS_ASSIGN_OR_RETURN(const Linear fused,
                       take_linear("self_attention.query_key_value", rows, width));
  SplitGroupedRows(fused, falcon.key_value_head_count, falcon.decoder.head_dim, weights);
  ESS_ASSIGN_OR_RETURN(weights.output, take_linear("self_attention.dense", width, width));
  ESS_ASSIGN_OR_RETURN(weights.up,
                       take_linear("mlp.dense_h_to_4h", falcon.decoder.intermediate_size, width));
  ESS_ASSIGN_OR_RETURN(weights.down,
                       take_linear("mlp.dense_4h_to_h", width, falcon.decoder.intermediate_size));
  return weights;
}

// Groups of heads that share keys, two norms in a layer.
nlohmann::json TinyFalconConfig() {
  return {{"model_type", "falcon"}, {"vocab_size", 31},
          {"hidden_size", 16},      {"ffn_hidden_size", 24},
          {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_kv_heads", 2},      {"new_decoder_architecture", true},
          {"bias", true},           {"max_position_embeddings", 64}};
}

}  // namespace

Architecture FalconArchitecture() {
  return LayerNormArchitecture<ReadFalconConfig, TakeFalconLayer>(
      {.model_type = "falcon",
       .base_prefixes = {"transformer."},
       .ignored_suffixes = {".rotary_emb.inv_freq", ".rotary.inv_freq"},
       .initial_weights =
           [](const ConfigReader& config) {
             return ReadInitialWeights(config, {.tied_head = true});
           },
       .tiny_config = TinyFalconConfig});
}

}  // namespace ess::models
