// Gated feed-forwards: down(activation(gate x) * up x), one for all tokens or chosen by token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "server/models/layers/activation.h"
#include "server/models/layers/linear.h"

namespace ess::models {

// Immutable after loading.
struct GatedFeedForward {
  Linear gate, up;  // [I, D]
  Linear down;      // [D, I]
  ActivationInPlace activation = nullptr;

  // x [L, D] => [L, I], what `down` takes.
  at::Tensor Inner(const at::Tensor& x) const;
};

// A few experts for each token, weighed by a router.
// Source: Shazeer et al. 2017 (arXiv:1701.06538); the routing of Mixtral and Qwen3-MoE.
struct MixtureOfExperts {
  Linear router;  // [experts, D]
  std::vector<GatedFeedForward> experts;
  int64_t chosen = 0;       // Experts per token, those of the largest softmax of the router.
  bool normalized = false;  // Whether their weights are made to sum to 1.

  // x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace ess::models
