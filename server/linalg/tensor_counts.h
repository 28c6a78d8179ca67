// Counts of singular values above tolerances, for a chunk of heads.
#pragma once

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/tensor_chunk.h"

namespace ess::linalg {

// One for each of `tolerances` [H, T] > 0, as CountWithNudges gives it: all of them in one batch,
// then those whose pivots were not stable again at tolerances moved up.
// `norms` [H]: max_i sigma_1(H_i), or a lower bound within a factor of ten or so; a head with 0 is
// the zero operator.
// Errors: kCancelled, kDeadlineExceeded.
absl::StatusOr<std::vector<BlockCounts>> NudgedCounts(const TensorChunk& chunk,
                                                      std::span<const double> tolerances,
                                                      std::span<const double> norms,
                                                      const CancellationToken& cancellation);

// The same, with the doubt put on positions: where the counts a little below and a little above a
// tolerance differ. Everything is doubtful at tolerances below 1e-7 of the norm, which do not run.
absl::StatusOr<std::vector<PositionCounts>> CountAbove(const TensorChunk& chunk,
                                                       std::span<const double> tolerances,
                                                       std::span<const double> norms,
                                                       const CancellationToken& cancellation);

}  // namespace ess::linalg
