#include "server/linalg/inertia_tree.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/inertia_tree_run.h"

namespace ess::linalg {
namespace {

// Ties are not counted: tau is moved up, far beyond rounding and far below any meaning. When tau
// makes a pivot block singular, signs are noise and only another tau helps: 1e-11, 8e-11, ...
constexpr double kFirstNudge = 1e-11;
constexpr double kNudgeFactor = 8;
constexpr int kMaxRuns = 6;
// A larger one may pass a singular value that the tolerance is meant to be below.
constexpr double kHarmlessNudge = 1e-9;

// When another tau does not help, a leading minor of a pivot block is nearly singular by accident.
// Empty positions before the first one shift all the cuts of the tree, and so make other blocks.
constexpr int64_t kOffsets[] = {0, 3, 13, 22};

// At the growth limit the counts still are exact to 1e-16 (sigma_1 / tau)^2 of tau, which is 1e-19
// of growth; beyond it a hundred times that is taken for the error.
constexpr double kErrorOfGrowth = 1e-17;
constexpr double kLargestUncertainty = 1e-2;

// Growth far above what the operator's own scale explains. In units of tau, normal growth is up to
// (sigma_1 / tau)^2, the size of H^T H / tau; measured on random and degenerate operators.
double GrowthLimit(double tau, double spectral_norm) {
  const double ratio = spectral_norm / tau;
  return tau * (1e9 + 1e3 * ratio * ratio);
}

}  // namespace

absl::Status InertiaTree::Load(std::span<const double> matrix, int64_t length,
                               const CancellationToken& cancellation) {
  ESS_CHECK(length >= 1 && static_cast<int64_t>(matrix.size()) == length * length);
  source_ = matrix;
  length_ = length;
  return Place(0, cancellation);
}

MatrixView InertiaTree::PaddedCopy(int64_t offset, int64_t width) {
  const int64_t stride = StrideFor(width);
  padded_.Reserve(width * stride);
  for (int64_t row = 0; row < width; ++row) {
    double* to = padded_.data() + row * stride;
    // The tree reads whole blocks on the diagonal, and nothing to their right.
    std::fill_n(to, Arena::Rounded(row + 1), 0.0);
    if (row < offset || row >= offset + length_) continue;
    std::copy_n(source_.data() + (row - offset) * length_, row - offset, to + offset);
  }
  return {padded_.data(), stride};
}

absl::Status InertiaTree::Place(int64_t offset, const CancellationToken& cancellation) {
  offset_ = offset;
  const int64_t width = Arena::Rounded(offset + length_);
  problem_.root = {.width = width,
                   .b = width == length_ ? MatrixView{source_.data(), length_}
                                         : PaddedCopy(offset, width)};
  arena_.Reserve(TreeScratch(problem_.root));
  if (width == kBlock) return absl::OkStatus();

  const int64_t first_half = problem_.root.first_half();
  const int64_t second_half = width - first_half;
  column_gram_.Reserve(first_half * StrideFor(first_half));
  row_gram_.Reserve(second_half * StrideFor(second_half));
  problem_.grams = {.columns = {column_gram_.data(), StrideFor(first_half)},
                    .rows = {row_gram_.data(), StrideFor(second_half)}};
  return ComputeRootGrams(problem_.root, column_gram_.data(), row_gram_.data(), arena_,
                          cancellation);
}

absl::StatusOr<BlockCounts> InertiaTree::CountWithNudges(double tau, double spectral_norm,
                                                         const CancellationToken& cancellation) {
  BlockCounts best{.counts = {}, .uncertainty = std::numeric_limits<double>::infinity()};
  std::vector<double> counts(problem_.root.width);
  double previous_growth = std::numeric_limits<double>::infinity();
  double nudge = kFirstNudge;
  for (int run = 0; run < kMaxRuns; ++run, nudge *= kNudgeFactor) {
    problem_.a_identity = problem_.c_identity = tau * (1 + nudge);
    ESS_ASSIGN_OR_RETURN(const TreeResult result, RunTree(problem_, counts, arena_, cancellation));
    const bool stable = !result.singular_pivot && result.growth <= GrowthLimit(tau, spectral_norm);
    double uncertainty = std::numeric_limits<double>::infinity();
    if (stable) {
      uncertainty = nudge <= kHarmlessNudge ? 0 : 2 * nudge;
    } else if (!result.singular_pivot) {
      uncertainty = std::max(2 * nudge, kErrorOfGrowth * result.growth / tau);
    }
    if (uncertainty < best.uncertainty) {
      best.counts.assign(counts.begin() + offset_, counts.begin() + offset_ + length_);
      best.uncertainty = uncertainty;
    }
    // Where tau is to blame, growth falls in step with the nudge.
    if (stable || result.growth > previous_growth / 2) break;
    previous_growth = result.growth;
  }
  return best;
}

absl::StatusOr<std::vector<double>> InertiaTree::LogDeterminants(
    double t, const CancellationToken& cancellation) {
  ESS_CHECK(length_ > 0 && t > 0);
  // From the first offset, whatever earlier calls have done: the same bits each time.
  if (offset_ != 0) ESS_RETURN_IF_ERROR(Place(0, cancellation));
  TreeProblem problem = problem_;
  problem.a_identity = t;
  problem.c_identity = -t;
  problem.sum = PivotSum::kLogAbs;
  std::vector<double> sums(problem.root.width);
  ESS_RETURN_IF_ERROR(RunTree(problem, sums, arena_, cancellation).status());
  const double of_identity = static_cast<double>(problem.root.width) * std::log(t);
  for (double& sum : sums) sum -= of_identity;
  sums.resize(length_);
  return sums;
}

absl::StatusOr<BlockCounts> InertiaTree::CountAbove(double tau, double spectral_norm,
                                                    const CancellationToken& cancellation) {
  ESS_CHECK(length_ > 0 && tau > 0);
  BlockCounts best{.counts = std::vector<int32_t>(length_, 0), .uncertainty = 0};
  // |entries| <= 1, so no singular value is above L; a huge tau would only overflow.
  if (tau >= static_cast<double>(length_)) return best;
  best.uncertainty = std::numeric_limits<double>::infinity();
  for (const int64_t offset : kOffsets) {
    // From the first offset again each time: counts must not depend on earlier calls.
    if (offset != offset_) ESS_RETURN_IF_ERROR(Place(offset, cancellation));
    ESS_ASSIGN_OR_RETURN(BlockCounts counts, CountWithNudges(tau, spectral_norm, cancellation));
    if (counts.uncertainty < best.uncertainty) best = std::move(counts);
    if (best.uncertainty == 0) return best;
  }
  if (best.uncertainty <= kLargestUncertainty) return best;
  return absl::AbortedError(fmt::format(
      "inertia tree: no stable pivots at tolerance {} of spectral norm {}", tau, spectral_norm));
}

}  // namespace ess::linalg
