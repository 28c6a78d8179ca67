// The largest singular value of one past-to-future block, with its vectors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"

namespace ess::linalg {

struct TopSingularValue {
  double sigma = 0;           // Never above sigma_1(H_i), but for rounding.
  std::vector<double> right;  // [i], unit.
  std::vector<double> left;   // [L - i], H_i right / sigma.
};

// Lanczos on H_i^T H_i with full reorthogonalization, from a random vector of the given seed, until
// the value rises by less than `accuracy` of itself in five steps. With 1e-15 that is sigma_1
// unless the start was almost orthogonal to its vector, which MaxBlockSpectralNorm finds out.
//
// Shapes: `matrix` is T, row-major [length, length]; 1 <= position < length.
// Errors: kCancelled, kDeadlineExceeded.
// Cost:   4 i (L - i) operations a step; 10 to 100 steps at 1e-15, 5 to 20 at 1e-3.
absl::StatusOr<TopSingularValue> LargestSingularValue(std::span<const double> matrix,
                                                      int64_t length, int64_t position,
                                                      uint64_t seed, double accuracy,
                                                      const CancellationToken& cancellation);

}  // namespace ess::linalg
