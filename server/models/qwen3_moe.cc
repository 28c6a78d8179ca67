#include "server/models/qwen3_moe.h"

#include <algorithm>
#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/qwen_experts.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Qwen3MoeConfig.
absl::StatusOr<GatedDecoderConfig> ReadQwen3Moe(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig qwen, ReadGatedDecoder(config, {.vocabulary_size = 151936,
                                                                          .hidden_size = 2048,
                                                                          .intermediate_size = 6144,
                                                                          .layer_count = 24,
                                                                          .head_count = 32,
                                                                          .key_value_head_count = 4,
                                                                          .max_positions = 32768}));
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, qwen));
  qwen.query_key_norm = true;
  ESS_ASSIGN_OR_RETURN(qwen.rotary, ReadRotaryScaling(config, qwen.head_dim, qwen.max_positions));
  ESS_ASSIGN_OR_RETURN(const bool slides, config.Bool("use_sliding_window", false));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 4096));
  if (slides) std::fill(qwen.windows.begin(), qwen.windows.end(), window);
  ESS_ASSIGN_OR_RETURN(
      qwen.experts,
      ReadQwenExperts(config, qwen.layer_count,
                      {.count = 128, .chosen = 8, .intermediate_size = 768, .normalized = false}));
  return qwen;
}

// The first layer has no experts.
nlohmann::json TinyQwen3MoeConfig() {
  return {{"model_type", "qwen3_moe"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"moe_intermediate_size", 12},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"num_experts", 3},
          {"num_experts_per_tok", 2},
          {"mlp_only_layers", {0}},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture Qwen3MoeArchitecture() {
  return GatedArchitecture<ReadQwen3Moe>("qwen3_moe", TinyQwen3MoeConfig);
}

}  // namespace ess::models
