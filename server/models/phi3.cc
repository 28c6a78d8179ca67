#include "server/models/phi3.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Phi3Config.
absl::StatusOr<GatedDecoderConfig> ReadPhi3(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig phi, ReadGatedDecoder(config, {.vocabulary_size = 32064,
                                                                         .hidden_size = 3072,
                                                                         .intermediate_size = 8192,
                                                                         .layer_count = 32,
                                                                         .head_count = 32,
                                                                         .max_positions = 4096,
                                                                         .norm_epsilon = 1e-5}));
  phi.fused_projections = true;
  ESS_ASSIGN_OR_RETURN(phi.rotary,
                       ReadRotaryScaling(config, phi.head_dim, phi.max_positions,
                                         {.may_be_partial = true, .yarn_is_longrope = true}));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 0));
  ESS_ASSIGN_OR_RETURN(
      phi.windows, ReadLayerWindows(config, phi.layer_count, window, [](int64_t) { return true; }));
  return phi;
}

absl::StatusOr<InitialWeights> Phi3InitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(config, {.padded_embedding = "embed_tokens", .padding = 32000});
}

// A window, and half of each head rotates.
nlohmann::json TinyPhi3Config() {
  return {{"model_type", "phi3"},         {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},      {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2},     {"sliding_window", 3},    {"partial_rotary_factor", 0.5},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture Phi3Architecture() {
  return GatedArchitecture<ReadPhi3>("phi3", TinyPhi3Config, Phi3InitialWeights);
}

}  // namespace ess::models
