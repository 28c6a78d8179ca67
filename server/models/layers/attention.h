// Causal softmax attention, which hands over its maps as operators.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// The attention maps of one group of heads stay within this.
inline constexpr int64_t kMaxMapBytes = int64_t{64} << 20;

// One prompt's heads. Query head h reads key/value head h * G / H.
struct AttentionInputs {
  at::Tensor queries;  // [H, L, d], contiguous
  at::Tensor keys;     // [G, L, d]
  at::Tensor values;   // [G, L, dv]
  double scale = 1;
  at::Tensor key_bias;  // [H, L], added to the scaled scores of each key; undefined: none.
  double soft_cap = 0;  // Scores z become soft_cap tanh(z / soft_cap); 0: they stay.
  int64_t window = 0;   // A position sees itself and the window - 1 before it; 0: all before it.
};

// T = row softmax(scale Q K^T, capped and masked), scores and all in float32 whatever the inputs'
// dtype is; y = T V in the values' dtype. With a window T is a
// BandedOperator, else a DenseOperator.
//
// Hands the maps to `pass` as operators of `mixer` when they are wanted, in groups of heads whose
// maps stay within kMaxMapBytes (one head at least), and looks at the cancellation before each.
// Returns [L, H dv], heads in order; an undefined tensor when the pass ends after this mixer.
// Errors: those of the sink; kCancelled, kDeadlineExceeded.
// Cost: 2 H L^2 (d + dv) operations; memory: one group's maps and an [L, L] mask for
// each window.
absl::StatusOr<at::Tensor> CausalAttention(const AttentionInputs& inputs, int64_t mixer,
                                           ForwardPass& pass);

}  // namespace ess::models
