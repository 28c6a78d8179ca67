#include "server/linalg/block_norms.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/lanczos.h"

namespace ess::linalg {
namespace {

// The maximum is proved to this relative accuracy.
constexpr double kAccuracy = 1e-10;
// Rounds of Lanczos before the bisection takes over, which needs no luck but some forty trees.
constexpr int kMaxRounds = 16;

double SquaredNorm(std::span<const double> x) {
  double sum = 0;
  for (const double entry : x) sum += entry * entry;
  return sum;
}

// For i <= position: sigma_1(H_i) >= ||H_i x|| / ||x|| with x the first i entries of the right
// singular vector of `top`.
void BoundsBefore(std::span<const double> matrix, int64_t length, const TopSingularValue& top,
                  std::span<double> bounds) {
  const int64_t position = top.right.size();
  std::vector<double> squares(position + 1, 0.0);
  for (int64_t row = 1; row < length; ++row) {
    const double* entries = matrix.data() + row * length;
    double product = 0;
    for (int64_t i = 1; i <= std::min(row, position); ++i) {
      product += entries[i - 1] * top.right[i - 1];
      squares[i] += product * product;
    }
  }
  double norm = 0;
  for (int64_t i = 1; i <= position; ++i) {
    norm += top.right[i - 1] * top.right[i - 1];
    if (norm > 0) bounds[i] = std::max(bounds[i], std::sqrt(squares[i] / norm));
  }
}

// For i >= position: sigma_1(H_i) >= ||H_i^T y|| / ||y|| with y the entries of the left singular
// vector from row i on.
void BoundsAfter(std::span<const double> matrix, int64_t length, const TopSingularValue& top,
                 std::span<double> bounds) {
  const int64_t position = top.right.size();
  std::vector<double> product(length, 0.0);
  double norm = 0;
  for (int64_t i = length - 1; i >= position; --i) {
    const double weight = top.left[i - position];
    const double* entries = matrix.data() + i * length;
    for (int64_t column = 0; column < i; ++column) product[column] += weight * entries[column];
    norm += weight * weight;
    const double squares = SquaredNorm({product.data(), static_cast<size_t>(i)});
    if (norm > 0) bounds[i] = std::max(bounds[i], std::sqrt(squares / norm));
  }
}

// Halves the bracket [low, high] of the maximum until it is narrow enough.
absl::StatusOr<double> Bisect(double low, double high, InertiaTree& tree,
                              const CancellationToken& cancellation) {
  while (high > low * (1 + kAccuracy)) {
    const double middle = std::sqrt(low * high);
    ESS_ASSIGN_OR_RETURN(const BlockCounts result, tree.CountAbove(middle, low, cancellation));
    const bool exceeded = std::any_of(result.counts.begin(), result.counts.end(),
                                      [](int32_t count) { return count > 0; });
    (exceeded ? low : high) = middle;
  }
  return low;
}

}  // namespace

std::vector<double> BlockFrobeniusNorms(std::span<const double> matrix, int64_t length) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  std::vector<double> norms(length, 0.0);
  for (int64_t row = 1; row < length; ++row) {
    double sum = 0;
    for (int64_t i = 1; i <= row; ++i) {
      const double entry = matrix[row * length + i - 1];
      sum += entry * entry;
      norms[i] += sum;
    }
  }
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

absl::StatusOr<double> MaxBlockSpectralNorm(std::span<const double> matrix, int64_t length,
                                            InertiaTree& tree,
                                            const CancellationToken& cancellation) {
  const std::vector<double> upper = BlockFrobeniusNorms(matrix, length);
  const auto largest = std::max_element(upper.begin(), upper.end());
  if (*largest == 0) return 0.0;

  int64_t candidate = largest - upper.begin();
  double best = 0;
  std::vector<double> lower(length, 0.0);
  for (int round = 0; round < kMaxRounds; ++round) {
    ESS_ASSIGN_OR_RETURN(const TopSingularValue top,
                         LargestSingularValue(matrix, length, candidate, round, cancellation));
    best = std::max(best, top.sigma);
    lower[candidate] = std::max(lower[candidate], top.sigma);
    BoundsBefore(matrix, length, top, lower);
    BoundsAfter(matrix, length, top, lower);
    candidate = std::max_element(lower.begin(), lower.end()) - lower.begin();
    if (lower[candidate] > best * (1 + kAccuracy)) continue;

    best = std::max(best, lower[candidate]);
    ESS_ASSIGN_OR_RETURN(const BlockCounts result,
                         tree.CountAbove(best * (1 + kAccuracy / 2), best, cancellation));
    candidate = -1;
    for (int64_t i = 1; i < length; ++i) {
      if (result.counts[i] > 0 && (candidate < 0 || lower[i] > lower[candidate])) candidate = i;
    }
    if (candidate < 0) return best;
  }
  return Bisect(best, *largest, tree, cancellation);
}

}  // namespace ess::linalg
