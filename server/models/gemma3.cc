#include "server/models/gemma3.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/gemma_family.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Gemma3TextConfig.
absl::StatusOr<GatedDecoderConfig> ReadGemma3(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig gemma,
                       ReadGemmaFamily(config,
                                       {.vocabulary_size = 262208,
                                        .hidden_size = 2304,
                                        .intermediate_size = 9216,
                                        .layer_count = 26,
                                        .head_count = 8,
                                        .key_value_head_count = 4,
                                        .head_dim = 256,
                                        .max_positions = 131072,
                                        .norm_epsilon = 1e-6,
                                        .activation_key = "hidden_activation",
                                        .activation = "gelu_pytorch_tanh"},
                                       {}));
  gemma.query_key_norm = true;
  ESS_ASSIGN_OR_RETURN(gemma.rotary, ReadRotaryScaling(config, gemma.head_dim, gemma.max_positions,
                                                       {.default_theta = 1e6}));
  ESS_ASSIGN_OR_RETURN(
      gemma.window_rotary,
      ReadRotaryScaling(config, gemma.head_dim, gemma.max_positions,
                        {.theta = "rope_local_base_freq", .layer_type = "sliding_attention"}));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 4096));
  ESS_ASSIGN_OR_RETURN(const int64_t period, config.Size("sliding_window_pattern", 6));
  ESS_ASSIGN_OR_RETURN(gemma.windows,
                       ReadLayerWindows(config, gemma.layer_count, window,
                                        [&](int64_t layer) { return (layer + 1) % period != 0; }));
  return gemma;
}

// Windows shorter than the prompts of tests.
nlohmann::json TinyGemma3Config() {
  return {{"model_type", "gemma3_text"}, {"vocab_size", 31},
          {"hidden_size", 16},           {"intermediate_size", 24},
          {"num_hidden_layers", 3},      {"num_attention_heads", 4},
          {"num_key_value_heads", 2},    {"head_dim", 6},
          {"query_pre_attn_scalar", 9},  {"sliding_window", 3},
          {"sliding_window_pattern", 2}, {"max_position_embeddings", 64}};
}

}  // namespace

Architecture Gemma3Architecture() {
  return GatedArchitecture<ReadGemma3>("gemma3_text", TinyGemma3Config, GemmaInitialWeights);
}

}  // namespace ess::models
