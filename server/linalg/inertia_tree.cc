#include "server/linalg/inertia_tree.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/inertia_tree_run.h"

namespace ess::linalg {
namespace {

// When another tau does not help, a leading minor of a pivot block is nearly singular by accident.
// Empty positions before the first one shift all the cuts of the tree, and so make other blocks.
constexpr int64_t kOffsets[] = {0, 3, 13, 22};

constexpr double kLargestUncertainty = 1e-2;

}  // namespace

absl::Status InertiaTree::Load(std::span<const double> matrix, int64_t length,
                               const CancellationToken& cancellation, PositionRange positions) {
  ESS_CHECK(length >= 1 && static_cast<int64_t>(matrix.size()) == length * length);
  source_ = matrix;
  length_ = length;
  positions_ = {std::max(positions.begin, int64_t{0}), std::min(positions.end, length)};
  return Place(0, cancellation);
}

MatrixView InertiaTree::PaddedCopy(int64_t offset, int64_t width, double* out) const {
  const int64_t stride = StrideFor(width);
  for (int64_t row = 0; row < width; ++row) {
    double* to = out + row * stride;
    // The tree reads whole blocks on the diagonal, and nothing to their right.
    std::fill_n(to, Arena::Rounded(row + 1), 0.0);
    if (row < offset || row >= offset + length_) continue;
    std::copy_n(source_.data() + (row - offset) * length_, row - offset, to + offset);
  }
  return {out, stride};
}

absl::Status InertiaTree::Place(int64_t offset, const CancellationToken& cancellation) {
  offset_ = offset;
  const int64_t width = Arena::Rounded(offset + length_);
  problem_.root = {.width = width};
  problem_.grams = {};
  // Positions behind the last one that is asked for stay together, where nothing goes.
  const int64_t asked = Arena::Rounded(offset + positions_.end);
  const bool first_half_only = asked < width;
  if (first_half_only) problem_.root.cut = std::max(asked, FirstHalf(width));
  arena_.Reserve(TreeScratch(problem_.root));

  const int64_t first_half = problem_.root.first_half();
  const int64_t second_half = width - first_half;
  const int64_t column_gram = first_half * StrideFor(first_half);
  const int64_t row_gram = first_half_only ? 0 : second_half * StrideFor(second_half);
  const int64_t padded = width == length_ ? 0 : width * StrideFor(width);
  prepared_.Reserve(column_gram + row_gram + padded);
  double* columns = prepared_.data();
  double* rows = first_half_only ? nullptr : columns + column_gram;
  problem_.root.b = padded == 0 ? MatrixView{source_.data(), length_}
                                : PaddedCopy(offset, width, columns + column_gram + row_gram);
  if (width == kBlock) return absl::OkStatus();

  problem_.grams = {.columns = {columns, StrideFor(first_half)},
                    .rows = {rows, StrideFor(second_half)}};
  return ComputeRootGrams(problem_.root, columns, rows, arena_, cancellation);
}

absl::StatusOr<BlockCounts> InertiaTree::CountFromOffset(double tau, double spectral_norm,
                                                         PositionRange positions,
                                                         const CancellationToken& cancellation) {
  std::vector<double> sums(problem_.root.width);
  const int64_t begin = std::max(positions.begin, positions_.begin);
  const int64_t end = std::max(std::min(positions.end, positions_.end), begin);
  problem_.wanted = {offset_ + begin, offset_ + end};
  ESS_ASSIGN_OR_RETURN(BlockCounts result,
                       CountWithNudges(tau, spectral_norm, sums, [&](double nudged_tau) {
                         problem_.a_identity = problem_.c_identity = nudged_tau;
                         return RunTree(problem_, sums, arena_, cancellation);
                       }));
  if (!result.counts.empty()) {
    result.counts = {result.counts.begin() + offset_, result.counts.begin() + offset_ + length_};
    // The tree goes to whole blocks of 8 positions.
    std::fill(result.counts.begin(), result.counts.begin() + begin, 0);
    std::fill(result.counts.begin() + end, result.counts.end(), 0);
  }
  return result;
}

absl::StatusOr<BlockCounts> InertiaTree::CountAbove(double tau, double spectral_norm,
                                                    const CancellationToken& cancellation,
                                                    PositionRange positions) {
  ESS_CHECK(length_ > 0 && tau > 0);
  BlockCounts best{.counts = std::vector<int32_t>(length_, 0), .uncertainty = 0};
  // |entries| <= 1, so no singular value is above L; a huge tau would only overflow.
  if (tau >= static_cast<double>(length_)) return best;
  best.uncertainty = std::numeric_limits<double>::infinity();
  for (const int64_t offset : kOffsets) {
    // From the first offset again each time: counts must not depend on earlier calls.
    if (offset != offset_) ESS_RETURN_IF_ERROR(Place(offset, cancellation));
    ESS_ASSIGN_OR_RETURN(BlockCounts counts,
                         CountFromOffset(tau, spectral_norm, positions, cancellation));
    if (counts.uncertainty < best.uncertainty) best = std::move(counts);
    if (best.uncertainty == 0) return best;
  }
  if (best.uncertainty <= kLargestUncertainty) return best;
  return absl::AbortedError(fmt::format(
      "inertia tree: no stable pivots at tolerance {} of spectral norm {}", tau, spectral_norm));
}

}  // namespace ess::linalg
