#include "server/models/qwen3.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/qwen_windows.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Qwen3Config.
absl::StatusOr<GatedDecoderConfig> ReadQwen3(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig qwen,
                       ReadGatedDecoder(config, {.vocabulary_size = 151936,
                                                 .hidden_size = 4096,
                                                 .intermediate_size = 22016,
                                                 .layer_count = 32,
                                                 .head_count = 32,
                                                 .head_dim = 128,
                                                 .max_positions = 32768}));
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, qwen));
  qwen.query_key_norm = true;
  ESS_ASSIGN_OR_RETURN(qwen.rotary, ReadRotaryScaling(config, qwen.head_dim, qwen.max_positions));
  ESS_ASSIGN_OR_RETURN(qwen.windows, ReadQwenWindows(config, qwen.layer_count));
  return qwen;
}

// The last layer has a window.
nlohmann::json TinyQwen3Config() {
  return {{"model_type", "qwen3"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 6},
          {"use_sliding_window", true},
          {"sliding_window", 3},
          {"layer_types", {"full_attention", "full_attention", "sliding_attention"}},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture Qwen3Architecture() { return GatedArchitecture<ReadQwen3>("qwen3", TinyQwen3Config); }

}  // namespace ess::models
