// The ground truth: singular values of past-to-future blocks by a full SVD in float64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::linalg {

// Singular values of H_i = T[i:, :i] in descending order: min(i, L - i) of them, none at i = 0. The
// second form cuts the block to its first `rows` rows, T[i : i + rows, :i]; rows <= L - i.
//
// Shapes: `matrix` is T, row-major [length, length].
// Errors: kInternal           the SVD did not converge or an entry is not finite.
//         kResourceExhausted  out of memory.
// Cost:   about 4 m n^2 - 4/3 n^3 with m = max(i, L - i), n = min(i, L - i); LAPACK gesdd through
//         LibTorch, on the calling thread alone.
absl::StatusOr<std::vector<double>> BlockSingularValues(std::span<const double> matrix,
                                                        int64_t length, int64_t position);
absl::StatusOr<std::vector<double>> BlockSingularValues(std::span<const double> matrix,
                                                        int64_t length, int64_t position,
                                                        int64_t rows);

}  // namespace ess::linalg
