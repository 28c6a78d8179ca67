// The largest singular value of one past-to-future block, with its vectors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"

namespace ess::linalg {

struct TopSingularValue {
  double sigma = 0;           // Never above sigma_1(H_i), but for rounding.
  std::vector<double> right;  // [i], unit.
  std::vector<double> left;   // [L - i], H_i right / sigma.
};

// image = H x [rows], result = H^T image [columns].
using GramFunction = absl::FunctionRef<void(std::span<const double> x, std::span<double> image,
                                            std::span<double> result)>;

// Lanczos on H^T H with full reorthogonalization, from a random vector of the given seed, until the
// value rises by less than `accuracy` of itself in five steps. With 1e-15 that is sigma_1 unless
// the start was almost orthogonal to its vector, which a count of singular values above it finds
// out.
//
// REQUIRES: rows, columns >= 1.
// Errors: kCancelled, kDeadlineExceeded.
// Cost:   10 to 100 products at 1e-15, 5 to 20 at 1e-3.
absl::StatusOr<TopSingularValue> LargestSingularValue(int64_t rows, int64_t columns,
                                                      GramFunction multiply, uint64_t seed,
                                                      double accuracy,
                                                      const CancellationToken& cancellation);

// The same of one block. Shapes: `matrix` is T, row-major [length, length]; 1 <= position < length.
absl::StatusOr<TopSingularValue> LargestSingularValue(std::span<const double> matrix,
                                                      int64_t length, int64_t position,
                                                      uint64_t seed, double accuracy,
                                                      const CancellationToken& cancellation);

}  // namespace ess::linalg
