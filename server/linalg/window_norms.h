// sigma_1(H_i) at the positions of one window of a recurrence, by Lanczos on many of them at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/recurrent_window.h"

namespace ess::linalg {

// The matrices that Lanczos multiplies with, from one window.
class WindowNorms {
 public:
  // Keeps its matrices in the arena: nothing else is to be allocated while it lives that is not
  // given back. `window` must outlive it.
  WindowNorms(const RecurrentWindow& window, Arena& arena);

  // norms[k] = sigma_1(H_i) for i = a + 24 strip + k, in the window's units: relative error below
  // 1e-11. NaN where Lanczos does not converge, or where !HasFullPrecision: use an SVD there. The
  // block has no larger singular value unless the random start was almost orthogonal to its vector.
  // REQUIRES: norms.size() == positions(strip). Errors: kCancelled, kDeadlineExceeded. Cost: 48 (P
  // + W) (P + 3 W) operations a step, 5 to 30 steps.
  absl::Status Fill(int64_t strip, std::span<double> norms, const CancellationToken& cancellation);

  int64_t strips() const { return StripCount(window_.width); }
  int64_t positions(int64_t strip) const {
    return std::min(kStrip, window_.width - strip * kStrip);
  }

  static int64_t Scratch(int64_t padded_states, int64_t width);

 private:
  const RecurrentWindow& window_;
  Arena& arena_;
  // Left operands of products, in strips of 24. [v; beta] are the shares of the states before the
  // window and of the window's columns.
  double* gram_;     // [G Q; Q^T R] [P + W, P + W].
  double* outputs_;  // [X T_x]^T [P + W, W]
  double* inputs_;   // [X T_x] [W, P + W]
};

// The same for all positions of a window, [W].
absl::Status FillSpectralNorms(const RecurrentWindow& window, std::span<double> norms, Arena& arena,
                               const CancellationToken& cancellation);

}  // namespace ess::linalg
