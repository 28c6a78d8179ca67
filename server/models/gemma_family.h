// What Gemma 2 and 3 have in common.
#pragma once

#include "absl/status/statusor.h"
#include "server/models/gated_decoder.h"

namespace ess::models {

// Norms around 0 before and after attention and feed-forward, scaled embeddings, soft caps, and the
// scale of attention from query_pre_attn_scalar. Windows and rotary positions are left to the
// caller. `soft_caps`: attention's and the logits' where the config is silent; 0 for none. Errors:
// those of ReadGatedDecoder; kFailedPrecondition  attention to both sides.
struct SoftCaps {
  double attention = 0;
  double logits = 0;
};
absl::StatusOr<GatedDecoderConfig> ReadGemmaFamily(const ConfigReader& config,
                                                   const GatedDecoderDefaults& defaults,
                                                   const SoftCaps& soft_caps);

// Of Gemma 1 too: norms start at 0, since 1 is added to them.
absl::StatusOr<InitialWeights> GemmaInitialWeights(const ConfigReader& config);

}  // namespace ess::models
