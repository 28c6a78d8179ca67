// H_i^T H_i x for an operator whose memory is a window, from its rows as they are kept.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/local_matrix.h"

namespace ess::linalg {

// image = H_i x, result = H_i^T image. Rows: from i on, to the last one that has entries. Columns:
// the sinks below i, then those of the band. Cost: 2 w^2 operations, and 4 sinks (L - i).
void LocalProduct(const LocalMatrix& matrix, int64_t position, std::span<const double> x,
                  std::span<double> image, std::span<double> result);

// sigma_1(H_i) by Lanczos, right to 1e-15 unless the start, which the seed chooses, was almost
// orthogonal to its vector. REQUIRES: H_i is not 0.
// Errors: kCancelled, kDeadlineExceeded. Cost: 10 to 100 products.
absl::StatusOr<double> LocalSpectralNorm(const LocalMatrix& matrix, int64_t position, uint64_t seed,
                                         const CancellationToken& cancellation);

}  // namespace ess::linalg
