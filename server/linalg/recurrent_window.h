// What all positions of one window of a recurrence share, and its elimination at a tolerance.
//
// With R_C and R_O the square-root factors at the two ends of the window [a, b), and Phi, K, O, T_x
// its transition, input, output and inside (state_space.h), every H_i = T[i:, :i] with i in the
// window is, up to orthogonal maps,
//
//     [ X[i - a:, :]   T_x[i - a:, :i - a] ]     X = O R_C^T,   Z = R_O Phi R_C^T,
//     [ Z              Y[:, :i - a]        ]     Y = R_O K.
//
// With G = Z^T Z, Q = Z^T Y, R = Y^T Y and the columns scaled, the negative pivots, or the
// logarithm of the determinant, of [I, H_i; H_i^T, shift I] are those of the matrix with rows and
// columns
//
//     [ I   T_x            X           ]   rows of the window
//     [ .   shift - R      -Q^T        ]   columns of the window
//     [ .   .              shift - G   ]   columns before it, common to all its positions
//
// restricted to rows >= i and columns < i: eliminate the common block once, then the inertia tree
// serves all positions of the window. shift = tau^2 counts, shift = -t^2 gives log-determinants.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/square_root_factor.h"
#include "server/linalg/state_space.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

struct RecurrentWindow {
  int64_t first = 0;   // a
  int64_t count = 0;   // Positions before L.
  int64_t width = 0;   // W: the count rounded up to a multiple of 8.
  int64_t states = 0;  // P
  // The numbers below are those of H_i / 2^exponent. 0 unless squares would be out of range.
  int exponent = 0;
  std::vector<double> common;   // -G [P, P], X^T [P, W], -Q [P, W], each in strips of 24.
  std::vector<double> columns;  // -R [W, StrideFor(W)], the lower triangle.
  std::vector<double> inside;   // T_x [W, W], strictly lower.
  // ||H_i||_F^2 [W], a sum of squares: nothing cancels. 0 beyond `count`.
  std::vector<double> squared_norms;
  double largest_square = 0;  // Of squared_norms.

  const double* outputs() const { return common.data() + StripCount(states) * kStrip * states; }
  const double* couplings() const { return outputs() + StripCount(width) * kStrip * states; }
};

// Whether H_i of position a + i is not so much smaller than other blocks of the window that its
// squares vanish beside theirs; false for H_i = 0.
inline bool HasFullPrecision(const RecurrentWindow& window, int64_t i) {
  constexpr double kVanishingShare = 1e-140;
  return window.squared_norms[i] > kVanishingShare * window.largest_square;
}

// `past` is R_C at the start of the window, `future` is R_O at its end; `source.inside` is moved
// out. Cost: about 3 P^3 + 5 P^2 W operations.
void DescribeWindow(TransitionKind kind, StateWindow& source, const SquareRootFactor& past,
                    const SquareRootFactor& future, RecurrentWindow& window, Arena& arena);
int64_t DescribeWindowScratch(int64_t padded_states, int64_t width);

// Positions a + first <= i < a + last of a window.
struct WindowRange {
  int64_t first = 0;
  int64_t last = 0;
};

// One elimination of a window at a range of positions: rows before the first and columns from the
// last on, whose size may be out of all proportion, are left out. Numbers are those of
// H_i / 2^exponent 2^-rescale.
struct WindowShift {
  double shift = 0;
  int rescale = 0;
  PivotSum sum = PivotSum::kNegative;
  WindowRange range;
};

// sums[i - a] [W]: over the pivots of the matrix above, including P of the common block and i - a
// of the window's columns; any number outside of the range. Cost: about P^3 / 3 + 3 P^2
// W + 2 P W^2 + W^3 / 2 operations. Errors: kCancelled, kDeadlineExceeded.
absl::StatusOr<TreeResult> EliminateWindow(const RecurrentWindow& window, const WindowShift& shift,
                                           std::span<double> sums, Arena& arena,
                                           const CancellationToken& cancellation);
int64_t EliminateWindowScratch(int64_t padded_states, int64_t width);

}  // namespace ess::linalg
