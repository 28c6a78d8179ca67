// RWKV-7's recurrence: a diagonal decay and one direction that is moved to another.
//
//   S_t = (diag(w_t) + p_t q_t^T) S_{t-1} + k_t v_t^T,   y_t = S_t^T r_t
//
// Source: Peng et al. 2025 (arXiv:2503.14456).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// One prompt, all of one head count.
struct RankOneScanInputs {
  at::Tensor receptances;  // r [L, H, N]
  at::Tensor log_decays;   // log w [L, H, N], at most 0.
  at::Tensor to, from;     // p and q [L, H, N]
  at::Tensor keys;         // [L, H, N]
  at::Tensor values;       // [L, H, d]
};

// Hands over T as DiagonalPlusRankOne when `mixer` is wanted, in groups of heads of bounded size.
// Returns y [L, H, d] in float32; an undefined tensor when the pass ends after this mixer.
// Errors: those of the sink; kCancelled, kDeadlineExceeded, looked at every chunk of 16 positions.
// Cost:   O(L H N d).
absl::StatusOr<at::Tensor> RankOneScan(const RankOneScanInputs& inputs, int64_t mixer,
                                       ForwardPass& pass);

}  // namespace ess::models
