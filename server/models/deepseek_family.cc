#include "server/models/deepseek_family.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

// Ranks and dimensions of heads; the scale needs the rotary positions.
absl::StatusOr<LatentAttentionConfig> ReadLatentAttention(const ConfigReader& config,
                                                          int64_t rotary_dim,
                                                          const GatedDecoderConfig& decoder) {
  LatentAttentionConfig latent;
  latent.hidden_size = decoder.hidden_size;
  latent.head_count = decoder.head_count;
  latent.rotary_dim = rotary_dim;
  latent.bias = decoder.attention_output_bias;
  ESS_ASSIGN_OR_RETURN(latent.query_rank, config.SizeOrNone("q_lora_rank", 1536));
  ESS_ASSIGN_OR_RETURN(latent.key_value_rank, config.Size("kv_lora_rank", 512));
  ESS_ASSIGN_OR_RETURN(latent.plain_dim, config.Size("qk_nope_head_dim", 128));
  ESS_ASSIGN_OR_RETURN(latent.value_dim, config.Size("v_head_dim", 128));
  const int64_t widest = latent.plain_dim + std::max(latent.rotary_dim, latent.value_dim);
  if (latent.head_count > kMaxConfigSize / widest) {
    return config.Unsupported("num_attention_heads",
                              fmt::format("num_attention_heads * (qk_nope_head_dim + "
                                          "qk_rope_head_dim or v_head_dim) up to {}",
                                          kMaxConfigSize));
  }
  return latent;
}

absl::StatusOr<ExpertsConfig> ReadExperts(const ConfigReader& config,
                                          const DeepseekDefaults& defaults, int64_t layer_count) {
  ExpertsConfig experts;
  ESS_ASSIGN_OR_RETURN(experts.count, config.Size("n_routed_experts", defaults.expert_count));
  ESS_ASSIGN_OR_RETURN(experts.routing.chosen,
                       config.Size("num_experts_per_tok", defaults.experts_per_token));
  ESS_ASSIGN_OR_RETURN(experts.routing.scale,
                       config.Number("routed_scaling_factor", defaults.routed_scale, 0, 1e6));
  ESS_ASSIGN_OR_RETURN(experts.intermediate_size,
                       config.Size("moe_intermediate_size", defaults.expert_intermediate_size));
  ESS_ASSIGN_OR_RETURN(const int64_t shared,
                       config.SizeOrNone("n_shared_experts", defaults.shared_expert_count));
  if (shared > kMaxConfigSize / experts.intermediate_size) {
    return config.Unsupported(
        "n_shared_experts",
        fmt::format("n_shared_experts * moe_intermediate_size up to {}", kMaxConfigSize));
  }
  // transformers computes them as one wide expert.
  experts.shared_intermediate_size = shared * experts.intermediate_size;
  ESS_ASSIGN_OR_RETURN(const int64_t period, config.Size("moe_layer_freq", 1));
  if (period != 1) return config.Unsupported("moe_layer_freq", "1");
  ESS_ASSIGN_OR_RETURN(const int64_t dense,
                       config.Count("first_k_dense_replace", defaults.dense_layer_count));
  for (int64_t layer = 0; layer < layer_count; ++layer) experts.layers.push_back(layer >= dense);
  return experts;
}

}  // namespace

absl::StatusOr<GatedDecoderConfig> ReadDeepseekFamily(const ConfigReader& config,
                                                      const DeepseekDefaults& defaults) {
  ESS_ASSIGN_OR_RETURN(const int64_t rotary_dim, config.Size("qk_rope_head_dim", 64));
  GatedDecoderDefaults decoder_defaults = defaults.decoder;
  decoder_defaults.head_dim = rotary_dim;
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig deepseek, ReadGatedDecoder(config, decoder_defaults));
  if (deepseek.head_dim != rotary_dim) {
    return config.Contradiction(
        fmt::format("head_dim is {}, but qk_rope_head_dim is {}", deepseek.head_dim, rotary_dim));
  }
  if (deepseek.key_value_head_count != deepseek.head_count) {
    return config.Unsupported("num_key_value_heads", "as many as num_attention_heads");
  }
  ESS_ASSIGN_OR_RETURN(deepseek.attention_output_bias, config.Bool("attention_bias", false));
  ESS_ASSIGN_OR_RETURN(deepseek.rotary,
                       ReadRotaryScaling(config, rotary_dim, deepseek.max_positions));
  ESS_ASSIGN_OR_RETURN(LatentAttentionConfig latent,
                       ReadLatentAttention(config, rotary_dim, deepseek));
  latent.scale = deepseek.rotary.ScoreFactor() /
                 std::sqrt(static_cast<double>(latent.plain_dim + latent.rotary_dim));
  deepseek.latent = latent;
  ESS_ASSIGN_OR_RETURN(deepseek.experts, ReadExperts(config, defaults, deepseek.layer_count));
  return deepseek;
}

}  // namespace ess::models
