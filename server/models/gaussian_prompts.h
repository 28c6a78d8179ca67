// Prompts that are no text: independent standard normal embeddings, to look at a model before it
// knows any language (Parnichkun et al. 2025, arXiv:2504.19561, section 5.1).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ess::models {

struct GaussianPrompts {
  int64_t count = 0;   // Prompts.
  int64_t length = 0;  // Positions of each.
  uint64_t seed = 0;
};

// float32 [length, width] on the CPU. Depends on the seed, the prompt's index and the width: other
// counts and lengths give the same rows.
at::Tensor GaussianEmbeddings(const GaussianPrompts& prompts, int64_t prompt, int64_t width);

}  // namespace ess::models
