// How the configs of Qwen's mixtures of experts spell them.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/mixture_of_experts.h"

namespace ess::models {

// A family's defaults of num_experts, num_experts_per_tok, ...
struct QwenExpertsDefaults {
  int64_t count, chosen, intermediate_size;
  bool normalized;
  int64_t shared_intermediate_size = 0;  // 0: the family has no shared expert.
};

// Experts in every decoder_sparse_step-th layer, but for mlp_only_layers.
// Errors: those of ConfigReader and CheckExperts.
absl::StatusOr<ExpertsConfig> ReadQwenExperts(const ConfigReader& config, int64_t layer_count,
                                              const QwenExpertsDefaults& defaults);

}  // namespace ess::models
