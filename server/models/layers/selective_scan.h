// Running the recurrences of Mamba and Mamba-2 over a prompt. The operators that ESS looks at are
// handed over in their native form (server/operators); this is how the model itself goes on.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"

namespace ess::models {

// Mamba (S6): h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t . h_t, for each channel.
// Source: Gu and Dao 2023 (arXiv:2312.00752), algorithm 2.
struct ScanInputs {
  at::Tensor x;      // [L, D]
  at::Tensor delta;  // [L, D] float32
  at::Tensor A;      // [D, N] float32
  at::Tensor B, C;   // [L, N]
};

// y [L, D] in float32. Cost: O(L D N); memory: 64 positions of states.
// Errors: kCancelled, kDeadlineExceeded, looked at every 64 positions.
absl::StatusOr<at::Tensor> RunSelectiveScan(const ScanInputs& inputs, const ForwardPass& pass);

// Mamba-2 (SSD): S_t = exp(delta_t A) S_{t-1} + delta_t B_t x_t^T, y_t = S_t^T C_t, for each head.
// Source: Dao and Gu 2024 (arXiv:2405.21060), section 6.
struct HeadScanInputs {
  at::Tensor x;      // [L, H, d]
  at::Tensor delta;  // [L, H] float32
  at::Tensor A;      // [H] float32
  at::Tensor B, C;   // [L, G, N]; head h reads group h G / H.
};

// y [L, H, d] in float32. Cost: O(L H N d) in products of chunks of 64 positions.
// Errors: kCancelled, kDeadlineExceeded, looked at every chunk.
absl::StatusOr<at::Tensor> RunHeadScan(const HeadScanInputs& inputs, const ForwardPass& pass);

}  // namespace ess::models
