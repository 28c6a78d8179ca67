#include "server/models/gemma.h"

#include <cmath>

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/gemma_family.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' GemmaConfig.
absl::StatusOr<GatedDecoderConfig> ReadGemma(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig gemma,
                       ReadGatedDecoder(config, {.vocabulary_size = 256000,
                                                 .hidden_size = 3072,
                                                 .intermediate_size = 24576,
                                                 .layer_count = 28,
                                                 .head_count = 16,
                                                 .key_value_head_count = 16,
                                                 .head_dim = 256,
                                                 .max_positions = 8192,
                                                 .norm_epsilon = 1e-6,
                                                 .activation_key = "hidden_act",
                                                 .activation = "gelu_pytorch_tanh"}));
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, gemma));
  gemma.norm_kind = RmsNormKind::kGemma;
  gemma.embedding_scale = std::sqrt(static_cast<double>(gemma.hidden_size));
  ESS_ASSIGN_OR_RETURN(gemma.rotary,
                       ReadRotaryScaling(config, gemma.head_dim, gemma.max_positions));
  return gemma;
}

// Heads of another size than hidden_size / heads.
nlohmann::json TinyGemmaConfig() {
  return {{"model_type", "gemma"},    {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"head_dim", 6},          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture GemmaArchitecture() {
  return GatedArchitecture<ReadGemma>("gemma", TinyGemmaConfig, GemmaInitialWeights);
}

}  // namespace ess::models
