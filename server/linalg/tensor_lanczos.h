// The largest singular values of many masked matrices at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"

namespace ess::linalg {

// P problems for each of H matrices: problem p of matrix h is diag(row_mask) M diag(column_mask).
// float64; masks are 0 or 1.
struct MaskedMatrices {
  at::Tensor matrices;     // [H, R, C]
  at::Tensor row_mask;     // [H or 1, R, P]
  at::Tensor column_mask;  // [H or 1, C, P]
  at::Tensor scales;       // [H, P]: Frobenius norms, or 1 where that is 0.
};

struct TopSingularValues {
  std::vector<double> sigma;       // [H, P]
  std::vector<uint8_t> converged;  // [H, P]
  at::Tensor right;                // [H, C, P], if asked for: about the right singular vectors.
};

struct LanczosOptions {
  uint64_t seed = 0;
  int max_steps = 400;
  bool with_vectors = false;
  // A column stops at a residual of this share of sigma^2. A residual of r changes an eigenvalue by
  // r^2 over the gap; in units of the eigenvalue.
  double largest_residual = 3e-7;
};

// Lanczos on M^T M without reorthogonalization, one column for each problem, from masked copies of
// one random vector. What has not converged is a lower bound.
// Errors: kCancelled, kDeadlineExceeded. Waits for the device at steps 8, 16, 32, 48, ... and the
// last. Cost: 4 H R C P operations a step, 10 to 100 steps.
absl::Status FindTopSingularValues(const MaskedMatrices& problem, const LanczosOptions& options,
                                   const CancellationToken& cancellation,
                                   TopSingularValues& result);

}  // namespace ess::linalg
