// Norms of the past-to-future blocks H_i = T[i:, :i], and their maximum over the positions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/inertia_tree.h"

namespace ess::linalg {

// ||H_i||_F for i in [0, L): sums of squares only, nothing cancels. `matrix` is T, row-major
// [length, length]; its squares must neither overflow nor matter when they underflow.
// Cost: O(L^2).
std::vector<double> BlockFrobeniusNorms(std::span<const double> matrix, int64_t length);

// max_i sigma_1(H_i); 0 for L = 1 and for a zero operator. A lower bound, and proved to be within
// `accuracy` relative (block_spectra.h); an exact one is the sigma_1 of one position, right to
// rounding, proved to at most 1e-7 where the tree had to move its tolerance (blocks of exactly the
// same norm, as in copies).
//
// Lanczos gives sigma_1 at a promising position, its singular vectors give lower bounds at all
// others in O(L^2), and when none is larger the inertia tree, asked for singular values above the
// best one at the positions whose norms leave it open, proves it or names the positions that are.
// Lanczos looks there next, or, where the magnitude is enough, the tree brackets it.
//
// `tree` has `matrix` loaded, and the same conditions on entries apply. Where it was loaded for
// some positions only, one of them must have the largest sigma_1.
// Errors: as InertiaTree::CountAbove; kAborted when there is no such proof either.
// Cost:   typically a tree over some positions and a few dozen products with one block; up to 21
//         L^3 operations for an exact maximum along a ridge, as long filters have.
absl::StatusOr<double> MaxBlockSpectralNorm(std::span<const double> matrix, int64_t length,
                                            double accuracy, InertiaTree& tree,
                                            const CancellationToken& cancellation);

}  // namespace ess::linalg
