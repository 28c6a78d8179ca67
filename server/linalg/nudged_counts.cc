#include "server/linalg/nudged_counts.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

// When tau makes a pivot block singular, signs are noise and only another tau helps.
constexpr double kNudgeFactor = 8;
constexpr int kMaxRuns = 6;
// A larger one may pass a singular value that the tolerance is meant to be below.
constexpr double kHarmlessNudge = 1e-9;

// At the growth limit the counts still are exact to 1e-16 (sigma_1 / tau)^2 of tau, which is 1e-19
// of growth; beyond it a hundred times that is taken for the error.
constexpr double kErrorOfGrowth = 1e-17;

}  // namespace

// In units of tau, normal growth is up to (sigma_1 / tau)^2, the size of H^T H / tau; measured on
// random and degenerate operators.
double GrowthLimit(double tau, double spectral_norm) {
  const double ratio = spectral_norm / tau;
  return tau * (1e9 + 1e3 * ratio * ratio);
}

absl::StatusOr<BlockCounts> CountWithNudges(
    double tau, double spectral_norm, std::span<const double> sums,
    absl::FunctionRef<absl::StatusOr<TreeResult>(double nudged_tau)> run) {
  BlockCounts best{.counts = {}, .uncertainty = std::numeric_limits<double>::infinity()};
  double previous_growth = std::numeric_limits<double>::infinity();
  double nudge = kTieNudge;
  for (int attempt = 0; attempt < kMaxRuns; ++attempt, nudge *= kNudgeFactor) {
    ESS_ASSIGN_OR_RETURN(const TreeResult result, run(tau * (1 + nudge)));
    const bool stable = !result.singular_pivot && result.growth <= GrowthLimit(tau, spectral_norm);
    double uncertainty = std::numeric_limits<double>::infinity();
    if (stable) {
      uncertainty = nudge <= kHarmlessNudge ? 0 : 2 * nudge;
    } else if (!result.singular_pivot) {
      uncertainty = std::max(2 * nudge, kErrorOfGrowth * result.growth / tau);
    }
    if (uncertainty < best.uncertainty) {
      best.counts.assign(sums.begin(), sums.end());
      best.uncertainty = uncertainty;
    }
    // Where tau is to blame, growth falls in step with the nudge.
    if (stable || result.growth > previous_growth / 2) break;
    previous_growth = result.growth;
  }
  return best;
}

absl::StatusOr<PositionCounts> ProvedCounts(
    double tau, absl::FunctionRef<absl::StatusOr<BlockCounts>(double tau)> count) {
  PositionCounts result;
  ESS_ASSIGN_OR_RETURN(BlockCounts counts, count(tau));
  if (counts.uncertainty > 0) {
    const double margin = 4 * counts.uncertainty;
    ESS_ASSIGN_OR_RETURN(const BlockCounts low, count(tau * (1 - margin)));
    ESS_ASSIGN_OR_RETURN(counts, count(tau * (1 + margin)));
    const bool proved = std::max(low.uncertainty, counts.uncertainty) <= margin / 2;
    result.doubtful.resize(counts.counts.size());
    for (size_t i = 0; i < counts.counts.size(); ++i) {
      result.doubtful[i] = !proved || low.counts[i] != counts.counts[i];
    }
  }
  result.counts = std::move(counts.counts);
  return result;
}

}  // namespace ess::linalg
