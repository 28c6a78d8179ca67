#include "server/linalg/inertia_tree.h"

#include <algorithm>
#include <cmath>

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
constexpr int kMaxReruns = 6;

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
  length_ = length;
  const int64_t width = (length + kBlock - 1) / kBlock * kBlock;
  const int64_t stride = StrideFor(width);
  matrix_.assign(width * stride, 0.0);
  for (int64_t row = 0; row < length; ++row) {
    std::copy_n(matrix.data() + row * length, row, matrix_.data() + row * stride);
  }
  arena_.Reserve(TreeScratch(width));
  problem_.root = TreeNode{.width = width, .b = {matrix_.data(), stride}};
  if (width == kBlock) return absl::OkStatus();

  const int64_t first_half = problem_.root.first_half();
  const int64_t second_half = width - first_half;
  column_gram_.resize(first_half * StrideFor(first_half));
  row_gram_.resize(second_half * StrideFor(second_half));
  problem_.grams = {.columns = {column_gram_.data(), StrideFor(first_half)},
                    .rows = {row_gram_.data(), StrideFor(second_half)}};
  return ComputeRootGrams(problem_.root, column_gram_.data(), row_gram_.data(), arena_,
                          cancellation);
}

absl::StatusOr<std::vector<int32_t>> InertiaTree::CountAbove(
    double tau, double spectral_norm, const CancellationToken& cancellation) {
  ESS_CHECK(length_ > 0 && tau > 0);
  std::vector<int32_t> counts(problem_.root.width, 0);
  // |entries| <= 1, so no singular value is above L; a huge tau would only overflow.
  if (tau < static_cast<double>(length_)) {
    double nudge = kFirstNudge;
    bool stable = false;
    for (int run = 0; run <= kMaxReruns && !stable; ++run, nudge *= kNudgeFactor) {
      problem_.tau = tau * (1 + nudge);
      ESS_ASSIGN_OR_RETURN(const TreeResult result,
                           RunTree(problem_, counts, arena_, cancellation));
      stable = !result.singular_pivot && result.growth <= GrowthLimit(tau, spectral_norm);
    }
    if (!stable) {
      return absl::AbortedError(
          fmt::format("inertia tree: no stable pivots at tolerance {} of spectral norm {} after {} "
                      "runs",
                      tau, spectral_norm, kMaxReruns + 1));
    }
  }
  counts.resize(length_);
  return counts;
}

}  // namespace ess::linalg
