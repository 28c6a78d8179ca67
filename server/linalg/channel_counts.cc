#include "server/linalg/channel_counts.h"

#include <algorithm>
#include <cmath>

namespace ess::linalg {
namespace {

// Elimination squares the blocks: what is left of tau^2 beside ||H||^2 has lost too many digits
// below tau = 1.2e-7 ||H||.
constexpr double kLargestSquareRatio = 0x1p46;

// Normal growth is ||H||^2 / tau^2 in units of tau, or 1. Far above that a leading block was nearly
// singular by accident.
double GrowthLimit(double square_ratio) { return 1e6 + 1e3 * square_ratio; }

}  // namespace

void ChannelCounter::Reset() {
  const int64_t lanes = group_.lanes();
  inverse_taus_ = LaneMemory(lanes);
  growth_ = LaneMemory(lanes);
  thresholds_ = LaneMemory(lanes);
  position_counts_ = LaneMemory(lanes);
  recount_.assign(lanes, 0);
  recounted_windows_ = 0;
}

void ChannelCounter::Count(int64_t first_position, const ChannelWindow& window,
                           std::span<const double> taus, double* counts) {
  const int64_t lanes = group_.lanes();
  bool eliminate = false;
  bool recount = false;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const double tau = taus[lane];
    const double square = window.largest_squared_norm[lane];
    thresholds_[lane] = tau;
    recount_[lane] = false;
    inverse_taus_[lane] = 0;  // Counts 0.
    // No singular value is above the Frobenius norm.
    if (square <= tau * tau) continue;
    recount_[lane] = !(square <= kLargestSquareRatio * (tau * tau));
    if (!recount_[lane]) inverse_taus_[lane] = 1 / tau;
    eliminate |= !recount_[lane];
    recount |= recount_[lane];
  }
  if (eliminate) {
    group_.kernels().count_window(group_.layout(), window, inverse_taus_.get(), group_.scratch(),
                                  counts, growth_.get());
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (inverse_taus_[lane] == 0) continue;
      const double norm =
          window.largest_squared_norm[lane] * inverse_taus_[lane] * inverse_taus_[lane];
      recount_[lane] = !(growth_[lane] <= GrowthLimit(norm));
      recount |= recount_[lane];
    }
  } else {
    std::fill_n(counts, kWindow * lanes, 0.0);
  }
  if (!recount) return;
  ++recounted_windows_;
  forms_.MakeBlocks(first_position, window);
  for (int64_t t = 0; t < kWindow; ++t) {
    forms_.Count(t, thresholds_.get(), group_.RankBound(first_position + t),
                 position_counts_.get());
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (recount_[lane]) counts[t * lanes + lane] = position_counts_[lane];
    }
  }
}

}  // namespace ess::linalg
