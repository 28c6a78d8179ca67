// Counts and entropies at the positions of one window, each window in its own scale.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/local_matrix.h"
#include "server/linalg/local_window.h"

namespace ess::linalg {

// Tolerances and norms are in the units of the LocalMatrix. Thread-compatible.
class LocalMeasures {
 public:
  // `norms`: ||H_i||_F of each position. Both must outlive this.
  LocalMeasures(const LocalMatrix& matrix, std::span<const double> norms);

  // Windows start at multiples of this; the last one may reach beyond the last position.
  int64_t window_width() const { return width_; }
  // The positions of the window that starts at `first` end here.
  int64_t WindowEnd(int64_t first) const;

  // Fills counts.counts [L] and counts.doubtful [L] at the window's positions.
  // Errors: kCancelled, kDeadlineExceeded.
  absl::Status CountWindow(int64_t first, double tau, PositionCounts& counts,
                           const CancellationToken& cancellation);

  // Fills entropies [L] and errors [L] at the window's positions whose block is not 0.
  // Errors: kAborted  a log-determinant is not finite; kCancelled, kDeadlineExceeded.
  absl::Status MeasureEntropies(int64_t first, std::span<double> entropies,
                                std::span<double> errors, const CancellationToken& cancellation);

 private:
  double LargestNorm(int64_t first) const;
  absl::Status MeasureGroup(int64_t first, std::span<const int64_t> positions, double scale,
                            std::span<double> entropies, std::span<double> errors,
                            const CancellationToken& cancellation);

  const LocalMatrix& matrix_;
  const std::span<const double> norms_;
  int64_t width_;
  LocalWindow window_;
  LocalWindow shifted_window_;  // Other cuts, where pivots are not stable.
};

}  // namespace ess::linalg
