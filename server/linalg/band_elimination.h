// One shift of a reduced window: counts or log-determinants at its positions.
//
// With s = t^2, or -tau^2 for counts, the elimination of the common rows and columns leaves
//
//     A = I + P^T N^-1 P      B = T_x - P^T N^-1 Q      C = -s I - Y^T Y + Q^T N^-1 Q,
//
// N = G^T G + s I being a band, for the rows and columns of the window; the inertia tree does the
// rest.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/band_window.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// counts[i] = #{sigma(H) > tau} of the window's position i, for i in [begin, end), multiples of 8.
// `tau` is in the window's units. The growth is that of a tree with tau I at its root.
// Cost: 4 band width (width + ...) operations; with few positions about a third of that.
absl::StatusOr<TreeResult> CountWindow(const BandWindow& window, double tau, int64_t begin,
                                       int64_t end, std::span<double> counts, Arena& arena,
                                       const CancellationToken& cancellation);

// The same count at one position, `row` of the window, by an elimination with exchanges inside the
// window: where the order of CountWindow meets small pivots by accident, this does not. Cost: that
// of CountWindow for 8 positions, and 2/3 width^3 plain operations.
absl::StatusOr<TreeResult> CountPosition(const BandWindow& window, double tau, int64_t row,
                                         double& count, Arena& arena,
                                         const CancellationToken& cancellation);

// log_dets[i] = log det(I + H^T H / t^2) of all positions of the window; t in the window's units.
absl::Status WindowLogDeterminants(const BandWindow& window, double t, std::span<double> log_dets,
                                   Arena& arena, const CancellationToken& cancellation);

// What all of them do before the tree: see above.
struct ShiftedWindow {
  const BandWindow& window;
  double shift;  // s
  double scale;  // The columns of the window are times that: a power of two near 1 / sqrt |s|.
  PivotSum sum;
  int64_t begin;  // The positions that are wanted, multiples of 8.
  int64_t end;
};

struct EliminatedWindow {
  TreeNode node;      // Of the wanted positions.
  TreeResult result;  // Of the elimination so far.
};

// Doubles of scratch that each of them needs.
int64_t WindowEliminationScratch(int64_t common, int64_t width);

}  // namespace ess::linalg
