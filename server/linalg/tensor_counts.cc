#include "server/linalg/tensor_counts.h"

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

// Below this share of the norm, rounding decides the counts.
constexpr double kSmallestShare = 1e-7;
// Beyond this the counts around a tolerance say nothing about it.
constexpr double kLargestUncertainty = 1e-2;

PositionCounts AllDoubtful(int64_t length) {
  PositionCounts result{.counts = std::vector<int32_t>(length, 0),
                        .doubtful = std::vector<uint8_t>(length, 1)};
  result.doubtful[0] = 0;
  return result;
}

std::vector<int32_t> Counts(std::span<const double> sums) { return {sums.begin(), sums.end()}; }

// CountWithNudges with the trees of one head.
absl::StatusOr<BlockCounts> CountAgain(const TensorChunk& head, double tau, double norm,
                                       const CancellationToken& cancellation) {
  std::vector<double> sums(head.length());
  return CountWithNudges(tau, norm, sums, [&](double nudged) -> absl::StatusOr<TreeResult> {
    ESS_ASSIGN_OR_RETURN(const ShiftSums run,
                         head.Run({&nudged, 1}, PivotSum::kNegative, cancellation));
    std::copy(run.sums.begin(), run.sums.end(), sums.begin());
    return TreeResult{.growth = run.growth[0], .singular_pivot = !std::isfinite(run.growth[0])};
  });
}

// Counts a little below and above tau: where they agree the count is proved.
absl::StatusOr<PositionCounts> Certify(const TensorChunk& head, double tau, double norm,
                                       double uncertainty, const CancellationToken& cancellation) {
  if (uncertainty > kLargestUncertainty) return AllDoubtful(head.length());
  const double margin = 4 * uncertainty;
  ESS_ASSIGN_OR_RETURN(const BlockCounts low,
                       CountAgain(head, tau * (1 - margin), norm, cancellation));
  ESS_ASSIGN_OR_RETURN(BlockCounts high, CountAgain(head, tau * (1 + margin), norm, cancellation));
  const bool proved = std::max(low.uncertainty, high.uncertainty) <= margin / 2;
  PositionCounts result = AllDoubtful(head.length());
  for (int64_t i = 1; proved && i < head.length(); ++i) {
    result.doubtful[i] = low.counts[i] != high.counts[i];
    result.counts[i] = high.counts[i];
  }
  return result;
}

}  // namespace

absl::StatusOr<std::vector<BlockCounts>> NudgedCounts(const TensorChunk& chunk,
                                                      std::span<const double> tolerances,
                                                      std::span<const double> norms,
                                                      const CancellationToken& cancellation) {
  const int64_t per_head = static_cast<int64_t>(tolerances.size()) / chunk.heads();
  // Entries are at most 1, so no singular value is above L; a huge tolerance would only overflow.
  std::vector<double> shifts(tolerances.begin(), tolerances.end());
  for (double& shift : shifts) {
    shift = std::min(shift * (1 + kTieNudge), static_cast<double>(chunk.length()));
  }
  ESS_ASSIGN_OR_RETURN(const ShiftSums run, chunk.Run(shifts, PivotSum::kNegative, cancellation));
  std::vector<BlockCounts> result;
  for (int64_t head = 0; head < chunk.heads(); ++head) {
    for (int64_t t = 0; t < per_head; ++t) {
      const double tau = tolerances[head * per_head + t];
      BlockCounts& counts = result.emplace_back();
      if (norms[head] == 0 || run.growth[head * per_head + t] <= GrowthLimit(tau, norms[head])) {
        counts.counts = Counts(run.Of(head, t));
      } else {
        ESS_ASSIGN_OR_RETURN(counts,
                             CountAgain(chunk.Select({head}), tau, norms[head], cancellation));
      }
    }
  }
  return result;
}

absl::StatusOr<std::vector<PositionCounts>> CountAbove(const TensorChunk& chunk,
                                                       std::span<const double> tolerances,
                                                       std::span<const double> norms,
                                                       const CancellationToken& cancellation) {
  const int64_t per_head = static_cast<int64_t>(tolerances.size()) / chunk.heads();
  std::vector<PositionCounts> result(tolerances.size());
  std::vector<double> taus(tolerances.begin(), tolerances.end());
  for (size_t pair = 0; pair < taus.size(); ++pair) {
    const double norm = norms[pair / per_head];
    if (taus[pair] >= kSmallestShare * norm) continue;
    result[pair] = AllDoubtful(chunk.length());
    taus[pair] = norm;  // Any that runs smoothly.
  }
  ESS_ASSIGN_OR_RETURN(std::vector<BlockCounts> counts,
                       NudgedCounts(chunk, taus, norms, cancellation));
  for (size_t pair = 0; pair < taus.size(); ++pair) {
    if (!result[pair].counts.empty()) continue;
    const int64_t head = static_cast<int64_t>(pair) / per_head;
    if (counts[pair].uncertainty == 0) {
      result[pair].counts = std::move(counts[pair].counts);
    } else {
      ESS_ASSIGN_OR_RETURN(result[pair], Certify(chunk.Select({head}), taus[pair], norms[head],
                                                 counts[pair].uncertainty, cancellation));
    }
  }
  return result;
}

}  // namespace ess::linalg
