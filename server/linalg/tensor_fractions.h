// Counts above a fraction of each block's own sigma_1: a shift of its own for every position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/tensor_chunk.h"

namespace ess::linalg {

// [F][H]: for each fraction f in (0, 1) and head, N_i(f sigma_1(H_i)) at every position. The trees
// share shifts between positions, so they are of no use here: each position's own Gram matrix, less
// tau^2, is eliminated, many side by side. A count is doubtful where its pivots are not stable.
//
// `norms` [H, L]: sigma_1(H_i), as SpectralNorms gives it; where it is NaN the counts are doubtful.
// `byte_budget`: for the Gram matrices; one position always goes.
// Errors: kCancelled, kDeadlineExceeded. Cost: about L^4 / 16 operations for each head.
absl::StatusOr<std::vector<std::vector<PositionCounts>>> CountAboveFractions(
    const TensorChunk& chunk, std::span<const double> fractions, std::span<const double> norms,
    int64_t byte_budget, const CancellationToken& cancellation);

}  // namespace ess::linalg
