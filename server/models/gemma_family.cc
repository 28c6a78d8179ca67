#include "server/models/gemma_family.h"

#include <cmath>

#include "server/base/status_macros.h"

namespace ess::models {
namespace {

constexpr double kMaxSoftCap = 1e6;

// 0 where the file says null.
absl::StatusOr<double> ReadSoftCap(const ConfigReader& config, std::string_view key,
                                   double default_value) {
  if (config.IsNull(key)) return 0;
  return config.Number(key, default_value, 0, kMaxSoftCap);
}

}  // namespace

absl::StatusOr<GatedDecoderConfig> ReadGemmaFamily(const ConfigReader& config,
                                                   const GatedDecoderDefaults& defaults,
                                                   const SoftCaps& soft_caps) {
  ESS_ASSIGN_OR_RETURN(GatedDecoderConfig gemma, ReadGatedDecoder(config, defaults));
  ESS_RETURN_IF_ERROR(config.RefuseTrue("use_bidirectional_attention"));
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, gemma));
  gemma.norm_kind = RmsNormKind::kGemma;
  gemma.output_norms = true;
  gemma.embedding_scale = std::sqrt(static_cast<double>(gemma.hidden_size));
  ESS_ASSIGN_OR_RETURN(const int64_t scalar, config.Size("query_pre_attn_scalar", 256));
  gemma.attention_scale = 1 / std::sqrt(static_cast<double>(scalar));
  ESS_ASSIGN_OR_RETURN(gemma.attention_soft_cap,
                       ReadSoftCap(config, "attn_logit_softcapping", soft_caps.attention));
  ESS_ASSIGN_OR_RETURN(gemma.logit_soft_cap,
                       ReadSoftCap(config, "final_logit_softcapping", soft_caps.logits));
  return gemma;
}

absl::StatusOr<InitialWeights> GemmaInitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(
      config,
      {.tied_head = true, .norm_weight = 0, .padded_embedding = "embed_tokens", .padding = 0});
}

}  // namespace ess::models
