// Spectra of the positions of half a matrix, window by window (band_window.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/linalg/band_window.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// The left half of T, or of T turned over its anti-diagonal, where H_{L-i} is the transpose of what
// H_i was.
struct BandHalf {
  MatrixView matrix;  // The strictly lower triangle of rows [0, length), columns [0, end).
  int64_t length = 0;
  int64_t end = 0;  // Positions [0, end); a multiple of 8, at most length.
  bool turned = false;

  // The position of T that is position i here; 0 and `length` have an empty block.
  int64_t PositionOf(int64_t i) const { return turned ? length - i : i; }
};

// Thread-compatible.
class BandSpectra {
 public:
  // Positions per window.
  static int64_t WindowWidth(int64_t length);

  // Writes the answers of the half's positions, but for tolerances, into `spectrum`, whose arrays
  // have their sizes already. `norms`: ||H_i||_F of T's positions [length]; T's largest entry is
  // about 1. Where a position is too small beside its neighbours, or sigma_1 does not converge,
  // numbers are NaN and counts doubtful. `arena` must be empty; it takes up to 0.8 L^2 doubles.
  // Errors: kCancelled, kDeadlineExceeded.
  absl::Status Compute(const BandHalf& half, std::span<const double> norms,
                       const SpectrumRequest& request, Spectrum& spectrum, Arena& arena,
                       const CancellationToken& cancellation);

 private:
  struct WindowPositions;

  absl::Status FillWindow(const WindowPositions& positions, const BandWindow& window,
                          const SpectrumRequest& request, Spectrum& spectrum, Arena& arena,
                          const CancellationToken& cancellation);
  absl::Status FillEntropies(const WindowPositions& positions, const BandWindow& window,
                             Spectrum& spectrum, Arena& arena,
                             const CancellationToken& cancellation);
  absl::Status FillFractions(const WindowPositions& positions, const BandWindow& window,
                             const SpectrumRequest& request, Spectrum& spectrum, Arena& arena,
                             const CancellationToken& cancellation);

  std::vector<double> log_dets_;
};

}  // namespace ess::linalg
