#include "server/models/llama.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' LlamaConfig.
absl::StatusOr<GatedDecoderConfig> ReadLlama(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig llama,
                       ReadGatedDecoder(config, {.vocabulary_size = 32000,
                                                 .hidden_size = 4096,
                                                 .intermediate_size = 11008,
                                                 .layer_count = 32,
                                                 .head_count = 32,
                                                 .max_positions = 2048}));
  ESS_RETURN_IF_ERROR(ReadBiases(config, llama));
  ESS_ASSIGN_OR_RETURN(llama.rotary,
                       ReadRotaryScaling(config, llama.head_dim, llama.max_positions));
  return llama;
}

// Grouped queries, a head_dim of its own, biases and scaled rotary frequencies.
nlohmann::json TinyLlamaConfig() {
  return {{"model_type", "llama"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 6},
          {"attention_bias", true},
          {"mlp_bias", true},
          {"max_position_embeddings", 64},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 32}}}};
}

}  // namespace

Architecture LlamaArchitecture() { return GatedArchitecture<ReadLlama>("llama", TinyLlamaConfig); }

}  // namespace ess::models
