// The recurrent route: singular values of all blocks of a linear recurrence with N states, without
// ever forming T. Windows of positions, square-root factors carried by QR from window to window,
// and the inertia tree inside each window (square_root_factor.h, recurrent_window.h).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "server/linalg/block_spectra.h"
#include "server/linalg/recurrent_windows.h"
#include "server/linalg/state_space.h"

namespace ess::linalg {

// Cost, besides the windows' own (StateSpace): preparation about 20 L N^2 operations, shared by all
// measures, 40 where transitions are dense; each tolerance about 5 L N^2; entropy 20 times that;
// sigma_1 about 100 L N^2; each fraction 5 to 20 tolerances.
// Memory: about 12 L N doubles.
class RecurrentSpectra final : public BlockSpectra {
 public:
  // `width` positions go together, a multiple of 8; 0: chosen by the number of states.
  explicit RecurrentSpectra(std::unique_ptr<const StateSpace> space, int64_t width = 0)
      : windows_(std::move(space), width) {}

  int64_t length() const override { return windows_.length(); }
  // Lanczos at the positions with the largest Frobenius norm; that no other position has a larger
  // sigma_1 is proved by counts, or else Lanczos goes on there.
  absl::StatusOr<double> MaxSpectralNorm(double accuracy,
                                         const CancellationToken& cancellation) override;
  absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                   const CancellationToken& cancellation) override;
  // 0 where a norm is below 1e-140 of another one near by.
  std::vector<double> FrobeniusNorms() override;
  // Of the N x N product of the square-root factors at the position. Cost: about 4 N^3 + 2 W N^2.
  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override;
  // Cost: 8/3 L N^3.
  absl::StatusOr<std::vector<int32_t>> CausalRanks(const CancellationToken& cancellation) override;

 private:
  RecurrentWindows windows_;
};

}  // namespace ess::linalg
