// Linear attention whose state decays: GLA, RetNet and their relatives.
//
//   S_t = diag(a_t) S_{t-1} + k_t v_t^T,   y_t = S_t^T q_t    for each head
//
// Source: Yang et al. 2023 (arXiv:2312.06635), section 4, chunkwise form.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// One prompt. Where a tensor has fewer heads than `head_count`, head h reads group h G / H.
struct GatedScanInputs {
  int64_t head_count = 0;  // H
  at::Tensor queries;      // [L, G, N], scaled.
  at::Tensor keys;         // [L, G, N]
  at::Tensor values;       // [L, G, d]
  at::Tensor log_gates;    // [L, G, N], or [L, G, 1]: one gate for all states. log a_t, at most 0.
  // y_t = S_{t-1}^T q_t instead, as RWKV-6 reads.
  bool read_before = false;
};

// Hands over T as DiagonalRecurrence when `mixer` is wanted, in groups of heads of bounded size.
// Returns y [L, H, d] in float32; an undefined tensor when the pass ends after this mixer.
// Errors: those of the sink; kCancelled, kDeadlineExceeded, looked at every chunk.
// Cost:   O(L H N d).
absl::StatusOr<at::Tensor> GatedScan(const GatedScanInputs& inputs, int64_t mixer,
                                     ForwardPass& pass);

}  // namespace ess::models
