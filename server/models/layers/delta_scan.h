// The delta rule, gated or not: each step overwrites what the state holds at a key.
//
//   S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   y_t = S_t^T q_t
//
// Source: Yang et al. 2024 (arXiv:2406.06484 and arXiv:2412.06464), chunkwise form.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// One prompt. Where a tensor has fewer heads than `head_count`, head h reads group h G / H.
struct DeltaScanInputs {
  int64_t head_count = 0;  // H
  at::Tensor queries;      // [L, G, N], scaled.
  at::Tensor keys;         // [L, G, N]
  at::Tensor values;       // [L, G, d]
  at::Tensor beta;         // [L, G, 1]
  at::Tensor log_alpha;    // [L, G, 1], at most 0.
};

// Hands over T as DeltaRecurrence when `mixer` is wanted, in groups of heads of bounded size.
// Returns y [L, H, d] in float32; an undefined tensor when the pass ends after this mixer.
// Errors: those of the sink; kCancelled, kDeadlineExceeded, looked at every chunk of 64 positions.
// Cost:   O(L H N d).
absl::StatusOr<at::Tensor> DeltaScan(const DeltaScanInputs& inputs, int64_t mixer,
                                     ForwardPass& pass);

}  // namespace ess::models
