// Norms of the past-to-future blocks of a chunk of heads.
#pragma once

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/tensor_chunk.h"

namespace ess::linalg {

// ||H_i||_F [H, L]; as BlockFrobeniusNorms.
std::vector<double> FrobeniusNorms(const TensorChunk& chunk);

// max_i sigma_1(H_i) of each head [H], proved to `accuracy` as MaxBlockSpectralNorm proves it; NaN
// where the tree gives no proof. `frobenius` as FrobeniusNorms gives it, here and below. Errors:
// kCancelled, kDeadlineExceeded.
absl::StatusOr<std::vector<double>> MaxSpectralNorms(const TensorChunk& chunk,
                                                     std::span<const double> frobenius,
                                                     double accuracy,
                                                     const CancellationToken& cancellation);

// About the sigma_1 of each head's largest block by Frobenius norm [H]: a lower bound of the
// maximum, within a factor of ten or so. A few products with the matrices. Errors: kCancelled,
// kDeadlineExceeded.
absl::StatusOr<std::vector<double>> ProbableSpectralNorms(const TensorChunk& chunk,
                                                          std::span<const double> frobenius,
                                                          const CancellationToken& cancellation);

// sigma_1(H_i) at every position [H, L]; NaN where Lanczos did not converge.
// Errors: kCancelled, kDeadlineExceeded. Cost: 0.7 L^3 operations a step for each head.
absl::StatusOr<std::vector<double>> SpectralNorms(const TensorChunk& chunk,
                                                  std::span<const double> frobenius,
                                                  const CancellationToken& cancellation);

}  // namespace ess::linalg
