#include "server/models/mixtral.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' MixtralConfig.
absl::StatusOr<GatedDecoderConfig> ReadMixtral(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig mixtral,
                       ReadGatedDecoder(config, {.vocabulary_size = 32000,
                                                 .hidden_size = 4096,
                                                 .intermediate_size = 14336,
                                                 .layer_count = 32,
                                                 .head_count = 32,
                                                 .key_value_head_count = 8,
                                                 .max_positions = 131072,
                                                 .norm_epsilon = 1e-5}));
  ESS_ASSIGN_OR_RETURN(
      mixtral.rotary,
      ReadRotaryScaling(config, mixtral.head_dim, mixtral.max_positions, {.default_theta = 1e6}));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 0));
  ESS_ASSIGN_OR_RETURN(mixtral.windows, ReadLayerWindows(config, mixtral.layer_count, window,
                                                         [](int64_t) { return true; }));
  ExpertsConfig& experts = mixtral.experts.emplace();
  ESS_ASSIGN_OR_RETURN(experts.count, config.Size("num_local_experts", 8));
  ESS_ASSIGN_OR_RETURN(experts.routing.chosen, config.Size("num_experts_per_tok", 2));
  experts.intermediate_size = mixtral.intermediate_size;
  experts.routing.normalized = true;
  experts.layers.assign(static_cast<size_t>(mixtral.layer_count), true);
  experts.module = "block_sparse_moe.";
  experts.gate = "w1";
  experts.up = "w3";
  experts.down = "w2";
  ESS_RETURN_IF_ERROR(CheckExperts(config, experts));
  return mixtral;
}

nlohmann::json TinyMixtralConfig() {
  return {{"model_type", "mixtral"},      {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 12},      {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2},     {"num_local_experts", 3}, {"num_experts_per_tok", 2},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture MixtralArchitecture() {
  return GatedArchitecture<ReadMixtral>("mixtral", TinyMixtralConfig);
}

}  // namespace ess::models
