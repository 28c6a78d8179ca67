#include "server/linalg/local_measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/nudged_counts.h"

namespace ess::linalg {
namespace {

// Below this share of sigma_1 the squares of the elimination drown in rounding errors.
constexpr double kSmallestShare = 1e-7;

// Empty positions before the first one, for other cuts of the tree.
constexpr int64_t kOffsets[] = {0, 3, 13, 22};

// A narrower one costs more for each position: the tree works on whole vectors.
constexpr int64_t kNarrowestWindow = 16;

double PowerOfTwoNear(double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, exponent);
}

}  // namespace

LocalMeasures::LocalMeasures(const LocalMatrix& matrix, std::span<const double> norms)
    : matrix_(matrix),
      norms_(norms),
      width_(Arena::Rounded(std::max(matrix.memory(), kNarrowestWindow))),
      window_(matrix),
      shifted_window_(matrix) {}

int64_t LocalMeasures::WindowEnd(int64_t first) const {
  return std::min(first + width_, matrix_.length());
}

double LocalMeasures::LargestNorm(int64_t first) const {
  return *std::max_element(norms_.begin() + first, norms_.begin() + WindowEnd(first));
}

absl::Status LocalMeasures::CountWindow(int64_t first, double tau, PositionCounts& counts,
                                        const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(cancellation.Check());
  const double largest_norm = LargestNorm(first);
  if (largest_norm <= tau) return absl::OkStatus();  // sigma_1 <= ||H_i||_F.
  const double scale = 1 / PowerOfTwoNear(largest_norm);
  const int64_t end = WindowEnd(first);
  const int64_t width = Arena::Rounded(end - first);
  ESS_RETURN_IF_ERROR(window_.Load(first, width, scale, cancellation));
  // No further below ||H||_F than the rank allows.
  const double norm =
      std::max(window_.norm_bound(), scale * largest_norm / std::sqrt(static_cast<double>(width_)));
  const double norm_share = norm / (scale * largest_norm);
  const auto too_small = [&](int64_t i) { return tau < kSmallestShare * norm_share * norms_[i]; };
  bool any = false;
  for (int64_t i = first; i < end; ++i) any |= norms_[i] > tau && !too_small(i);

  BlockCounts best{.counts = {}, .uncertainty = std::numeric_limits<double>::infinity()};
  for (const int64_t offset : kOffsets) {
    if (!any || best.uncertainty == 0) break;
    LocalWindow& window = offset == 0 ? window_ : shifted_window_;
    const int64_t shifted_width = Arena::Rounded(end - first + offset);
    ESS_RETURN_IF_ERROR(window.Load(first - offset, shifted_width, scale, cancellation));
    std::vector<double> sums(shifted_width);
    ESS_ASSIGN_OR_RETURN(BlockCounts result,
                         CountWithNudges(scale * tau, norm, sums, [&](double nudged_tau) {
                           return window.Run(nudged_tau, PivotSum::kNegative, sums, cancellation);
                         }));
    if (result.uncertainty < best.uncertainty) {
      best = std::move(result);
      best.counts.erase(best.counts.begin(), best.counts.begin() + offset);
    }
  }
  for (int64_t i = first; i < end; ++i) {
    if (norms_[i] <= tau) continue;
    counts.doubtful[i] = too_small(i) || best.uncertainty > 0;
    if (!best.counts.empty()) counts.counts[i] = best.counts[i - first];
  }
  return absl::OkStatus();
}

absl::Status LocalMeasures::MeasureEntropies(int64_t first, std::span<double> entropies,
                                             std::span<double> errors,
                                             const CancellationToken& cancellation) {
  // Groups of positions that one scale fits.
  std::vector<int64_t> positions;
  for (int64_t i = first; i < WindowEnd(first); ++i) {
    if (norms_[i] > 0) positions.push_back(i);
  }
  std::stable_sort(positions.begin(), positions.end(),
                   [&](int64_t x, int64_t y) { return norms_[x] > norms_[y]; });
  for (auto begin = positions.begin(); begin != positions.end();) {
    const double scale = norms_[*begin];
    const auto end = std::find_if(
        begin, positions.end(), [&](int64_t i) { return norms_[i] * kLargestScaleRatio < scale; });
    ESS_RETURN_IF_ERROR(MeasureGroup(first, {begin, end}, scale, entropies, errors, cancellation));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status LocalMeasures::MeasureGroup(int64_t first, std::span<const int64_t> positions,
                                         double scale, std::span<double> entropies,
                                         std::span<double> errors,
                                         const CancellationToken& cancellation) {
  const int64_t width = Arena::Rounded(WindowEnd(first) - first);
  const double unit = 1 / PowerOfTwoNear(scale);
  ESS_RETURN_IF_ERROR(window_.Load(first, width, unit, cancellation));
  std::vector<double> sums(width);
  std::vector<std::array<double, kEntropyShifts>> log_dets(positions.size());
  for (int shift = 0; shift < kEntropyShifts; ++shift) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const double t = kEntropyRule[shift].shift * (scale * unit);
    ESS_RETURN_IF_ERROR(window_.Run(t, PivotSum::kLogAbs, sums, cancellation).status());
    for (size_t k = 0; k < positions.size(); ++k) {
      log_dets[k][shift] = sums[positions[k] - first];
      if (!std::isfinite(log_dets[k][shift])) {
        return absl::AbortedError(
            fmt::format("local window: the log-determinant at position {} is {}", positions[k],
                        log_dets[k][shift]));
      }
    }
  }
  for (size_t k = 0; k < positions.size(); ++k) {
    const int64_t i = positions[k];
    const double ratio = norms_[i] / scale;
    const int64_t side = std::min(i, matrix_.length() - i);
    const int64_t rank = std::min(side, matrix_.memory() + matrix_.sinks());
    const EntropyEstimate estimate =
        EstimateEntropy(log_dets[k], ratio * ratio, static_cast<double>(rank));
    entropies[i] = estimate.entropy;
    errors[i] = estimate.error;
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
