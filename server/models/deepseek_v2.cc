#include "server/models/deepseek_v2.h"

#include "server/base/status_macros.h"
#include "server/models/deepseek_family.h"
#include "server/models/gated_decoder.h"

namespace ess::models {
namespace {

// How experts are chosen.
absl::Status ReadRouting(const ConfigReader& config, ExpertRouting& routing) {
  ESS_RETURN_IF_ERROR(config.Choice("scoring_func", "softmax", {"softmax"}).status());
  // transformers ignores it, and the published code does not.
  ESS_RETURN_IF_ERROR(config.RefuseTrue("norm_topk_prob"));
  ESS_ASSIGN_OR_RETURN(const std::string method,
                       config.Choice("topk_method", "greedy", {"greedy", "group_limited_greedy"}));
  if (method == "greedy") return absl::OkStatus();
  ESS_ASSIGN_OR_RETURN(routing.group_count, config.Size("n_group", std::nullopt));
  ESS_ASSIGN_OR_RETURN(routing.chosen_groups, config.Size("topk_group", std::nullopt));
  return absl::OkStatus();
}

// Keys and defaults of transformers' DeepseekV2Config.
absl::StatusOr<GatedDecoderConfig> ReadDeepseekV2(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig deepseek,
                       ReadDeepseekFamily(config, {.decoder = {.vocabulary_size = 102400,
                                                               .hidden_size = 4096,
                                                               .intermediate_size = 11008,
                                                               .layer_count = 32,
                                                               .head_count = 32,
                                                               .max_positions = 2048},
                                                   .expert_count = 64,
                                                   .expert_intermediate_size = 1407,
                                                   .shared_expert_count = 2}));
  ESS_ASSIGN_OR_RETURN(deepseek.feed_forward_bias, config.Bool("mlp_bias", false));
  deepseek.experts->shared_bias = deepseek.feed_forward_bias;
  ESS_RETURN_IF_ERROR(ReadRouting(config, deepseek.experts->routing));
  ESS_RETURN_IF_ERROR(CheckExperts(config, *deepseek.experts));
  return deepseek;
}

// Queries from the hidden state, experts from the better of two groups, biases.
nlohmann::json TinyDeepseekV2Config() {
  return {{"model_type", "deepseek_v2"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"moe_intermediate_size", 12},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"q_lora_rank", nullptr},
          {"kv_lora_rank", 8},
          {"qk_nope_head_dim", 6},
          {"qk_rope_head_dim", 4},
          {"v_head_dim", 5},
          {"n_routed_experts", 4},
          {"n_shared_experts", 2},
          {"num_experts_per_tok", 2},
          {"topk_method", "group_limited_greedy"},
          {"n_group", 2},
          {"topk_group", 1},
          {"attention_bias", true},
          {"mlp_bias", true},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture DeepseekV2Architecture() {
  return GatedArchitecture<ReadDeepseekV2>("deepseek_v2", TinyDeepseekV2Config);
}

}  // namespace ess::models
