// What DeepSeek-V2 and -V3 have in common.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "server/models/gated_decoder.h"

namespace ess::models {

// What the two differ in where their configs are silent.
struct DeepseekDefaults {
  GatedDecoderDefaults decoder;
  int64_t dense_layer_count = 0;
  int64_t expert_count = 0;
  std::optional<int64_t> experts_per_token;
  int64_t expert_intermediate_size = 0;
  int64_t shared_expert_count = 0;
  double routed_scale = 1;
};

// Latent attention in every layer, a mixture of experts in all but the first layers. How experts
// are chosen beyond their number and scale is left to the caller, and so is CheckExperts.
// Errors: those of ReadGatedDecoder; kDataLoss  a head_dim that is not the rotary one;
//         kFailedPrecondition  key/value heads that are not as many as heads, products that are too
//         large, layers without experts between others.
absl::StatusOr<GatedDecoderConfig> ReadDeepseekFamily(const ConfigReader& config,
                                                      const DeepseekDefaults& defaults);

}  // namespace ess::models
