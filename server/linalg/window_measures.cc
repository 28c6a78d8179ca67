#include "server/linalg/window_measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

// Below this share of the window's largest norm tau is taken as this share: counts mean nothing
// there, and its square must not vanish.
constexpr double kSmallestTolerance = 1e-20;

// Positions whose Frobenius norms differ by more than this are not asked together.
constexpr double kLargestNormRatio = 100;

struct CountBounds {
  int32_t low = 0;
  int32_t high = std::numeric_limits<int32_t>::max();
};

// Runs of positions with a tau, whose norms are within kLargestNormRatio of each other.
std::vector<WindowRange> RangesOfSimilarNorm(const RecurrentWindow& window,
                                             std::span<const double> taus) {
  std::vector<WindowRange> ranges;
  double smallest = 0;
  double largest = 0;
  for (int64_t i = 0; i < window.count; ++i) {
    if (std::isnan(taus[i])) continue;
    const double square = window.squared_norms[i];
    const bool follows = !ranges.empty() && ranges.back().last == i;
    smallest = follows ? std::min(smallest, square) : square;
    largest = follows ? std::max(largest, square) : square;
    if (follows && largest <= kLargestNormRatio * kLargestNormRatio * smallest) {
      ++ranges.back().last;
    } else {
      ranges.push_back({.first = i, .last = i + 1});
      smallest = largest = square;
    }
  }
  return ranges;
}

}  // namespace

absl::StatusOr<BlockCounts> CountAbove(const RecurrentWindow& window, double tau,
                                       const WindowRange& range, Arena& arena,
                                       const CancellationToken& cancellation) {
  const double largest = std::sqrt(*std::max_element(window.squared_norms.begin() + range.first,
                                                     window.squared_norms.begin() + range.last));
  if (!(tau < largest)) return BlockCounts{.counts = std::vector<int32_t>(window.width, 0)};

  std::vector<double> sums(window.width, 0.0);
  const auto run = [&](double nudged_tau) -> absl::StatusOr<TreeResult> {
    int exponent = 0;
    const double root = 2 * std::frexp(nudged_tau, &exponent);  // In [1, 2).
    ESS_ASSIGN_OR_RETURN(TreeResult result, EliminateWindow(window,
                                                            {.shift = root * root,
                                                             .rescale = exponent - 1,
                                                             .sum = PivotSum::kNegative,
                                                             .range = range},
                                                            sums, arena, cancellation));
    result.growth *= nudged_tau;
    std::fill(sums.begin(), sums.begin() + range.first, 0.0);
    std::fill(sums.begin() + range.last, sums.end(), 0.0);
    return result;
  };
  return CountWithNudges(std::max(tau, kSmallestTolerance * largest), largest, sums, run);
}

absl::Status CountAboveEach(const RecurrentWindow& window, std::span<const double> taus,
                            std::span<int32_t> counts, std::span<uint8_t> doubtful, Arena& arena,
                            const CancellationToken& cancellation) {
  for (const WindowRange& range : RangesOfSimilarNorm(window, taus)) {
    std::vector<int64_t> open;
    for (int64_t i = range.first; i < range.last; ++i) open.push_back(i);
    std::sort(open.begin(), open.end(), [&](int64_t x, int64_t y) { return taus[x] < taus[y]; });
    std::vector<CountBounds> bounds(window.width);
    for (int round = 0; !open.empty(); ++round) {
      const int64_t asked = open[round == 0 ? 0 : round == 1 ? open.size() - 1 : open.size() / 2];
      const double tau = taus[asked];
      ESS_ASSIGN_OR_RETURN(const BlockCounts at_tau,
                           CountAbove(window, tau, range, arena, cancellation));
      for (const int64_t i : open) {
        const int32_t count = at_tau.counts[i];
        if (taus[i] >= tau * (1 + at_tau.uncertainty)) {
          bounds[i].high = std::min(bounds[i].high, count);
        }
        if (taus[i] <= tau * (1 - at_tau.uncertainty)) {
          bounds[i].low = std::max(bounds[i].low, count);
        }
      }
      if (at_tau.uncertainty > 0) {
        const auto alone = [&](double at) {
          return CountAbove(window, at, {asked, asked + 1}, arena, cancellation);
        };
        ESS_ASSIGN_OR_RETURN(const PositionCounts proved, ProvedCounts(tau, alone));
        doubtful[asked] = !proved.doubtful.empty() && proved.doubtful[asked] != 0;
        bounds[asked] = {proved.counts[asked], proved.counts[asked]};
      } else {
        // An inexact count elsewhere may contradict a bound: the position's own count settles it.
        bounds[asked] = {at_tau.counts[asked], at_tau.counts[asked]};
      }
      std::erase_if(open, [&](int64_t i) {
        const bool settled = bounds[i].low == bounds[i].high;
        if (settled) counts[i] = bounds[i].low;
        return settled;
      });
    }
  }
  return absl::OkStatus();
}

absl::Status FillEntropies(const RecurrentWindow& window, int64_t length,
                           std::span<EntropyEstimate> entropies, Arena& arena,
                           const CancellationToken& cancellation) {
  ESS_CHECK(static_cast<int64_t>(entropies.size()) == window.width);
  std::fill(entropies.begin(), entropies.end(), EntropyEstimate());
  std::vector<int64_t> left;
  for (int64_t i = 0; i < window.count; ++i) {
    if (HasFullPrecision(window, i)) {
      left.push_back(i);
    } else if (window.largest_square > 0) {
      entropies[i].entropy = NAN;
    }
  }
  std::vector<double> sums(window.width);
  std::vector<std::array<double, kEntropyShifts>> log_dets(window.width);
  while (!left.empty()) {
    double largest = 0;
    for (const int64_t i : left) largest = std::max(largest, window.squared_norms[i]);
    int exponent = 0;
    const double scale = std::frexp(std::sqrt(largest), &exponent);
    for (int j = 0; j < kEntropyShifts; ++j) {
      const double root = kEntropyRule[j].shift * scale;
      ESS_RETURN_IF_ERROR(EliminateWindow(window,
                                          {.shift = -root * root,
                                           .rescale = exponent,
                                           .sum = PivotSum::kLogAbs,
                                           .range = {0, window.width}},
                                          sums, arena, cancellation)
                              .status());
      for (const int64_t i : left) {
        // Each column brings a factor of the shift.
        log_dets[i][j] = sums[i] - 2 * static_cast<double>(window.states + i) * std::log(root);
      }
    }
    std::vector<int64_t> next;
    for (const int64_t i : left) {
      const double share = window.squared_norms[i] / largest;
      if (share * kLargestScaleRatio * kLargestScaleRatio < 1) {
        next.push_back(i);
        continue;
      }
      const int64_t position = window.first + i;
      entropies[i] = EstimateEntropy(log_dets[i], share,
                                     static_cast<double>(std::min(position, length - position)));
    }
    left = std::move(next);
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
