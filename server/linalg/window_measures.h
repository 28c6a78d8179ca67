// What ESS asks at the positions of one window of a recurrence. All tolerances and norms are in the
// window's own units, H_i / 2^exponent.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/recurrent_window.h"

namespace ess::linalg {

// counts[i - a] = #{sigma(H_i) > tau (1 + 1e-11)} in the range, [W]; 0 elsewhere.
// Errors: kCancelled, kDeadlineExceeded. Cost: one EliminateWindow, rarely a few.
absl::StatusOr<BlockCounts> CountAbove(const RecurrentWindow& window, double tau,
                                       const WindowRange& range, Arena& arena,
                                       const CancellationToken& cancellation);

// counts[i - a] = #{sigma(H_i) > taus[i - a] (1 + 1e-11)}, [W]; positions whose tau is NaN are left
// alone. Marks those whose count may be wrong in `doubtful` [W].
//
// Counts fall as tau rises, so the counts of all positions at one position's tau bound those at
// their own; positions are settled from both ends and from the middle.
// Errors: kCancelled, kDeadlineExceeded. Cost: typically 3 to 15 EliminateWindow, at most three for
// each position.
absl::Status CountAboveEach(const RecurrentWindow& window, std::span<const double> taus,
                            std::span<int32_t> counts, std::span<uint8_t> doubtful, Arena& arena,
                            const CancellationToken& cancellation);

// Entropies of the singular values [W], with their errors; NaN for blocks so
// much smaller than others of the window that their squares vanish.
// Errors: kCancelled, kDeadlineExceeded. Cost: 20 EliminateWindow for each factor of 8 between the
// norms of the window.
absl::Status FillEntropies(const RecurrentWindow& window, int64_t length,
                           std::span<EntropyEstimate> entropies, Arena& arena,
                           const CancellationToken& cancellation);

}  // namespace ess::linalg
