#include "server/models/mistral.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' MistralConfig.
absl::StatusOr<GatedDecoderConfig> ReadMistral(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig mistral,
                       ReadGatedDecoder(config, {.vocabulary_size = 32000,
                                                 .hidden_size = 4096,
                                                 .intermediate_size = 14336,
                                                 .layer_count = 32,
                                                 .head_count = 32,
                                                 .key_value_head_count = 8,
                                                 .max_positions = 131072}));
  ESS_ASSIGN_OR_RETURN(mistral.rotary,
                       ReadRotaryScaling(config, mistral.head_dim, mistral.max_positions));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 4096));
  ESS_ASSIGN_OR_RETURN(mistral.windows, ReadLayerWindows(config, mistral.layer_count, window,
                                                         [](int64_t) { return true; }));
  return mistral;
}

// A window shorter than the prompts of tests.
nlohmann::json TinyMistralConfig() {
  return {{"model_type", "mistral"},  {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"sliding_window", 3},    {"max_position_embeddings", 64}};
}

}  // namespace

Architecture MistralArchitecture() {
  return GatedArchitecture<ReadMistral>("mistral", TinyMistralConfig);
}

}  // namespace ess::models
