// The two square-root factors of a recurrence: every past-to-future block is
//
//   H_i = future(i)^T past(i)   up to orthogonal maps of the past and of the future,
//
// past(i) = R_C^T with R_C^T R_C the Gramian of what the past can put into the state, and future(i)
// = R_O with R_O^T R_O the Gramian of what the future reads of it. Both are carried from window to
// window by QR, so nothing is squared and rank-deficient factors do no harm. Source: the
// square-root method of balanced truncation; docs/ess.md.
#pragma once

#include <cstdint>
#include <vector>

#include "server/linalg/state_space.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Upper triangular, [P, P] with P = N rounded up to a multiple of 8.
struct SquareRootFactor {
  SquareRootFactor() = default;
  explicit SquareRootFactor(int64_t states)
      : padded(RoundUpToBlock(states)), entries(padded * StrideFor(padded), 0.0) {}

  int64_t stride() const { return StrideFor(padded); }
  MatrixView view() const { return {entries.data(), stride()}; }

  int64_t padded = 0;
  std::vector<double> entries;
};

enum class TimeDirection {
  kForward,   // R_C(b) from R_C(a): R <- qr [R Phi^T; K^T].
  kBackward,  // R_O(a) from R_O(b): R <- qr [R Phi; O].
};

// Carries a factor over a window [a, b) of `width` positions (a multiple of 8), whose transition
// Phi, input K and output O `window` holds. Every state is scaled by a power of two first, so that
// states of 1e150 and 1e-150 side by side do no harm.
// Cost: 2 width P^2 operations; 2 (width + P) P^2 + P^3 for a dense transition.
void CarryFactor(TimeDirection direction, TransitionKind kind, const StateWindow& window,
                 int64_t width, SquareRootFactor& factor, Arena& arena);

// Doubles of scratch that CarryFactor needs.
int64_t CarryFactorScratch(TransitionKind kind, int64_t padded_states, int64_t width);

}  // namespace ess::linalg
