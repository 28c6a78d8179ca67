#include "server/linalg/block_norms.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/block_sums.h"
#include "server/linalg/lanczos.h"

namespace ess::linalg {
namespace {

// The maximum is proved to this relative accuracy at least, where shared blocks have the very norm
// that is asked for.
constexpr double kWeakestProof = 1e-7;
// Lanczos looks around with this accuracy, as long as it finds a better position, then settles.
constexpr double kExploring = 1e-3;
constexpr double kRounding = 1e-15;
// Rounds of Lanczos before the tree brackets the maximum alone, which needs no luck but, for an
// exact one, some forty trees.
constexpr int kMaxRounds = 16;
// Where the maximum is to be bracketed, the steps up grow by this factor.
constexpr double kStride = 4;
// Positions that are looked at after a second tree has left some open; each costs a third of a
// tree or less.
constexpr int64_t kProbes = 8;

// What is known of sigma_1 at each position.
struct Bounds {
  std::vector<double> lower;
  std::vector<double> upper;

  double Best() const { return *std::max_element(lower.begin(), lower.end()); }
  double Ceiling() const { return *std::max_element(upper.begin(), upper.end()); }
  // Positions that may be above tau.
  std::vector<int64_t> Open(double tau) const {
    std::vector<int64_t> positions;
    for (size_t i = 0; i < upper.size(); ++i) {
      if (upper[i] > tau) positions.push_back(i);
    }
    return positions;
  }
  int64_t MostPromising(std::span<const int64_t> positions) const {
    return *std::max_element(positions.begin(), positions.end(),
                             [this](int64_t i, int64_t j) { return lower[i] < lower[j]; });
  }
};

// Lower bounds of sigma_1 at every position from the singular vectors of one: for i before it,
// ||H_i x|| / ||x|| with x the first i entries of the right vector; for i after it, ||H_i^T y|| /
// ||y|| with y the entries of the left vector from row i on.
void RaiseBounds(std::span<const double> matrix, int64_t length, const TopSingularValue& top,
                 std::span<double> bounds) {
  const int64_t position = top.right.size();
  std::vector<double> squares(position + 1);
  RightProductSquares(matrix, length, top.right, squares);
  double norm = 0;
  for (int64_t i = 1; i <= position; ++i) {
    norm += top.right[i - 1] * top.right[i - 1];
    if (norm > 0) bounds[i] = std::max(bounds[i], std::sqrt(squares[i] / norm));
  }
  squares.resize(length - position);
  LeftProductSquares(matrix, length, top.left, squares);
  norm = 0;
  for (int64_t i = length - 1; i >= position; --i) {
    norm += top.left[i - position] * top.left[i - position];
    if (norm > 0) bounds[i] = std::max(bounds[i], std::sqrt(squares[i - position] / norm));
  }
}

// Lower bounds from Lanczos at some of the open positions, evenly spaced, since sigma_1 changes
// slowly from one position to the next.
absl::Status Probe(std::span<const double> matrix, int64_t length, std::span<const int64_t> open,
                   int round, const CancellationToken& cancellation, Bounds& bounds) {
  const int64_t count = std::ssize(open);
  const int64_t probes = std::min(count, kProbes);
  for (int64_t k = 0; k < probes; ++k) {
    const int64_t position = open[(2 * k + 1) * count / (2 * probes)];
    ESS_ASSIGN_OR_RETURN(
        const TopSingularValue top,
        LargestSingularValue(matrix, length, position, round, kExploring, cancellation));
    bounds.lower[position] = std::max(bounds.lower[position], top.sigma);
    RaiseBounds(matrix, length, top, bounds.lower);
  }
  return absl::OkStatus();
}

// Lowers the upper bounds to tau wherever the tree finds no singular value above it.
absl::Status LowerBounds(double tau, double spectral_norm, std::span<const int64_t> open,
                         InertiaTree& tree, const CancellationToken& cancellation, Bounds& bounds) {
  const PositionRange range{open.front(), open.back() + 1};
  ESS_ASSIGN_OR_RETURN(const BlockCounts result,
                       tree.CountAbove(tau, spectral_norm, cancellation, range));
  if (result.uncertainty > kWeakestProof) {
    return absl::AbortedError("the inertia tree cannot tell which block has the largest norm");
  }
  for (const int64_t i : open) {
    if (result.counts[i] == 0) bounds.upper[i] = tau;
  }
  return absl::OkStatus();
}

// Brackets the maximum by ever longer steps up, then halves the bracket.
absl::StatusOr<double> Bracket(double accuracy, InertiaTree& tree,
                               const CancellationToken& cancellation, Bounds& bounds) {
  double low = bounds.Best();
  for (double step = accuracy; bounds.Ceiling() > low * (1 + accuracy); step *= kStride) {
    const double tau = std::min(low * (1 + step), std::sqrt(low * bounds.Ceiling()));
    ESS_RETURN_IF_ERROR(LowerBounds(tau, low, bounds.Open(tau), tree, cancellation, bounds));
    if (bounds.Ceiling() > tau) low = tau;
  }
  return low;
}

}  // namespace

std::vector<double> BlockFrobeniusNorms(std::span<const double> matrix, int64_t length) {
  std::vector<double> norms(length);
  BlockSquares(matrix, length, norms);
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

absl::StatusOr<double> MaxBlockSpectralNorm(std::span<const double> matrix, int64_t length,
                                            double accuracy, InertiaTree& tree,
                                            const CancellationToken& cancellation) {
  Bounds bounds{.lower = std::vector<double>(length, 0.0),
                .upper = BlockFrobeniusNorms(matrix, length)};
  std::vector<double> schur(length);
  BlockSchurBounds(matrix, length, schur);
  for (int64_t i = 0; i < length; ++i) bounds.upper[i] = std::min(bounds.upper[i], schur[i]);
  const PositionRange wanted = tree.positions();
  std::fill(bounds.upper.begin(), bounds.upper.begin() + wanted.begin, 0.0);
  std::fill(bounds.upper.begin() + wanted.end, bounds.upper.end(), 0.0);
  const auto largest = std::max_element(bounds.upper.begin(), bounds.upper.end());
  if (*largest == 0) return 0.0;
  int64_t candidate = largest - bounds.upper.begin();

  const bool exact = accuracy == kExactNorm;
  const double settling = exact ? kRounding : accuracy / 10;
  double lanczos = kExploring;
  bool walking = false;  // A tree has left positions open.
  double asked = 0;      // The tree was asked for singular values above this.
  for (int round = 0; round < kMaxRounds; ++round) {
    ESS_ASSIGN_OR_RETURN(
        const TopSingularValue top,
        LargestSingularValue(matrix, length, candidate, round, lanczos, cancellation));
    bounds.lower[candidate] = std::max(bounds.lower[candidate], top.sigma);
    RaiseBounds(matrix, length, top, bounds.lower);
    const double best = bounds.Best();
    std::vector<int64_t> open = bounds.Open(best * (1 + accuracy / 2));
    if (open.empty()) return best;

    const int64_t next = bounds.MostPromising(open);
    const bool moves = bounds.lower[next] > top.sigma * (1 + kExploring);
    const bool settled =
        lanczos == settling && bounds.lower[next] <= top.sigma * (1 + accuracy) && best > asked;
    candidate = next;
    lanczos = moves ? kExploring : settling;
    if (!settled) continue;

    asked = best * (1 + accuracy / 2);
    ESS_RETURN_IF_ERROR(LowerBounds(asked, best, open, tree, cancellation, bounds));
    open = bounds.Open(asked);
    if (open.empty()) return best;
    // A ridge: where it is highest does not matter.
    if (!exact) break;
    // The second time the walk is along a ridge, and longer steps are worth their price.
    if (walking) ESS_RETURN_IF_ERROR(Probe(matrix, length, open, round, cancellation, bounds));
    candidate = bounds.MostPromising(open);
    lanczos = walking ? settling : kExploring;
    walking = true;
  }
  return Bracket(accuracy, tree, cancellation, bounds);
}

}  // namespace ess::linalg
