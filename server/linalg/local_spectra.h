// Spectra of an operator whose memory is a window: sliding-window attention, short convolutions
// with gates; with the first columns in full, attention sinks.
//
// H_i lives in `memory` rows and columns, sinks aside. Tolerances and entropies: the inertia tree
// window by window (local_window.h). Spectral norms and fractions: the Gram matrix of each position
// (local_gram.h). Memory: O(L (window + sinks)).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/linalg/block_spectra.h"
#include "server/linalg/local_matrix.h"

namespace ess::linalg {

// Immutable after construction, but see BlockSpectra.
class LocalSpectra : public BlockSpectra {
 public:
  // As LocalMatrix: band[i, d] = T[i, i - d], sink_columns[i, j] = T[i, j] beyond the band.
  // REQUIRES: finite entries.
  LocalSpectra(std::span<const double> band, int64_t length, int64_t window,
               std::span<const double> sink_columns = {}, int64_t sinks = 0);

  int64_t length() const override { return matrix_.length(); }
  // Cost: a few times sigma_1 of 8 positions and as many counts, typically.
  absl::StatusOr<double> MaxSpectralNorm(double accuracy,
                                         const CancellationToken& cancellation) override;
  // Cost, for each position, w = window, n = window + sinks: 1.6 w^2 + 3 w sinks operations for
  // each tolerance, 20 times that for entropies; n^3 for spectral norms, and n^3 / 3 for each
  // fraction. Counts below 1e-7 sigma_1 are doubtful.
  absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                   const CancellationToken& cancellation) override;
  std::vector<double> FrobeniusNorms() override;
  // Cost: 4 n^3 operations with n = min(window, position, L - position) + sinks.
  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override;

 private:
  // Spectral norms and fractions.
  absl::Status ComputeByGram(const SpectrumRequest& request, Spectrum& spectrum,
                             const CancellationToken& cancellation) const;
  double InUnits(double value) const;    // From those of the matrix to the caller's.
  double FromUnits(double value) const;  // And back; may overflow or underflow.

  LocalMatrix matrix_;
  std::vector<double> norms_;  // ||H_i||_F, scaled as the matrix.
};

}  // namespace ess::linalg
