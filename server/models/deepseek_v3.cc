#include "server/models/deepseek_v3.h"

#include "server/base/status_macros.h"
#include "server/models/deepseek_family.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// How experts are chosen.
absl::Status ReadRouting(const ConfigReader& config, ExpertRouting& routing) {
  ESS_RETURN_IF_ERROR(config.Choice("scoring_func", "sigmoid", {"sigmoid"}).status());
  ESS_RETURN_IF_ERROR(config.Choice("topk_method", "noaux_tc", {"noaux_tc"}).status());
  routing.sigmoid = true;
  routing.group_leaders = 2;
  ESS_ASSIGN_OR_RETURN(routing.normalized, config.Bool("norm_topk_prob", true));
  ESS_ASSIGN_OR_RETURN(routing.group_count, config.Size("n_group", 8));
  ESS_ASSIGN_OR_RETURN(routing.chosen_groups, config.Size("topk_group", 4));
  return absl::OkStatus();
}

// Keys and defaults of transformers' DeepseekV3Config.
absl::StatusOr<GatedDecoderConfig> ReadDeepseekV3(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig deepseek,
                       ReadDeepseekFamily(config, {.decoder = {.vocabulary_size = 129280,
                                                               .hidden_size = 7168,
                                                               .intermediate_size = 18432,
                                                               .layer_count = 61,
                                                               .head_count = 128,
                                                               .max_positions = 4096},
                                                   .dense_layer_count = 3,
                                                   .expert_count = 256,
                                                   .experts_per_token = 8,
                                                   .expert_intermediate_size = 2048,
                                                   .shared_expert_count = 1,
                                                   .routed_scale = 2.5}));
  ESS_ASSIGN_OR_RETURN(deepseek.latent->interleaved, config.Bool("rope_interleave", true));
  ESS_ASSIGN_OR_RETURN(deepseek.unused_layer_count,
                       config.Count("num_nextn_predict_layers", 1, kMaxLayers));
  deepseek.experts->corrected = true;
  ESS_RETURN_IF_ERROR(ReadRouting(config, deepseek.experts->routing));
  ESS_RETURN_IF_ERROR(CheckExperts(config, *deepseek.experts));
  return deepseek;
}

absl::StatusOr<InitialWeights> DeepseekV3InitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(config, {.padded_embedding = "embed_tokens"},
                            {{.names = "*.e_score_correction_bias", .distribution = Constant(0)}});
}

// Queries from a latent vector, experts in the last of four layers.
nlohmann::json TinyDeepseekV3Config() {
  return {{"model_type", "deepseek_v3"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"moe_intermediate_size", 12},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 4},
          {"q_lora_rank", 10},
          {"kv_lora_rank", 8},
          {"qk_nope_head_dim", 6},
          {"qk_rope_head_dim", 4},
          {"v_head_dim", 12},
          {"n_routed_experts", 6},
          {"num_experts_per_tok", 3},
          {"n_group", 3},
          {"topk_group", 2},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture DeepseekV3Architecture() {
  return GatedArchitecture<ReadDeepseekV3>("deepseek_v3", TinyDeepseekV3Config,
                                           DeepseekV3InitialWeights);
}

}  // namespace ess::models
