// Counts the singular values of every past-to-future block above a tolerance, all blocks at once.
//
// N_i(tau) = #{sigma(H_i) > tau} is the number of negative eigenvalues of
//
//     M_i = [ tau I   H_i   ]
//           [ H_i^T   tau I ],
//
// and all M_i are principal submatrices of one matrix M over the rows and columns of T. A binary
// tree over the positions eliminates from M, at each node, the rows and columns that all positions
// below the node share, and adds up the signs of the pivots (Haynsworth's inertia additivity).
// Nothing is ever put back, so nothing is subtracted that was added before. docs/ess.md tells the
// algorithm and its error.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// One operator at a time, any number of tolerances; scratch is kept from one to the next.
// Thread-compatible.
class InertiaTree {
 public:
  // Takes the strictly lower triangle of T, row-major [length, length], and prepares what all
  // tolerances share. Cost: 0.25 L^3 operations; memory: at most 3 L^2 doubles.
  // `positions`: the only ones that will be asked for. Half of them halves cost and memory.
  // REQUIRES: finite entries of magnitude at most 1; for accuracy, the largest in [0.5, 1).
  // `matrix` stays as it is until the last call of CountAbove.
  // Errors: kCancelled, kDeadlineExceeded.
  absl::Status Load(std::span<const double> matrix, int64_t length,
                    const CancellationToken& cancellation, PositionRange positions = {});

  // counts[i] = #{sigma(H_i) > tau (1 + 1e-11)} for i in [0, L). A singular value within about
  // 1e-16 (spectral_norm / tau)^2 relative of tau may fall on either side; below tau = 1e-7
  // spectral_norm the counts mean nothing.
  //
  // `spectral_norm`: max_i sigma_1(H_i) or a lower bound within a factor of ten or so; it says
  // which growth is normal. REQUIRES: tau > 0; a successful Load.
  // Where rounding errors may have grown, tau is moved up by up to 4e-7 relative, then the tree is
  // cut differently; if that does not help, the result says how far the counts can be trusted.
  // Positions outside `positions`, or outside those of Load, are not looked at, and have a count
  // of 0.
  // Errors: kAborted     the errors may be anything; use another method.
  //         kCancelled, kDeadlineExceeded  within milliseconds of the token's change.
  // Cost:   0.29 L^3 operations, down to 0.1 L^3 for a few positions; rarely a few times that.
  absl::StatusOr<BlockCounts> CountAbove(double tau, double spectral_norm,
                                         const CancellationToken& cancellation,
                                         PositionRange positions = {});

  int64_t length() const { return length_; }
  // Those that may be asked for, within [0, L).
  PositionRange positions() const { return positions_; }
  // Holds nothing between two calls: others may use it then.
  Arena& scratch() { return arena_; }

 private:
  // Fills `out` with the matrix and zeros around it: `offset` rows and columns before, up to
  // `width` after.
  MatrixView PaddedCopy(int64_t offset, int64_t width, double* out) const;
  // Puts the matrix `offset` positions after the start of the tree.
  absl::Status Place(int64_t offset, const CancellationToken& cancellation);
  // The best count of this placement.
  absl::StatusOr<BlockCounts> CountFromOffset(double tau, double spectral_norm,
                                              PositionRange positions,
                                              const CancellationToken& cancellation);

  std::span<const double> source_;
  int64_t length_ = 0;
  PositionRange positions_;
  int64_t offset_ = 0;
  TreeProblem problem_;
  NumberBuffer prepared_;  // The Gram matrices of the root, and a padded copy where one is needed.
  Arena arena_;
};

}  // namespace ess::linalg
