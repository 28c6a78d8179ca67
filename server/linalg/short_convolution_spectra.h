// Spectra of a convolution with few taps and no gates: T[i, j] = taps[i - j].
//
// With K taps, H_i has K - 1 rows and columns, and away from the two ends of the sequence it is the
// same triangle at every position. sigma(H_i) = sigma(H_{L-i}), since turned over, a Hankel matrix
// stays one. So a sequence of 2 (K - 1) positions has all the blocks there are, and the cost does
// not depend on L.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/linalg/block_spectra.h"
#include "server/linalg/local_spectra.h"

namespace ess::linalg {

class ShortConvolutionSpectra : public BlockSpectra {
 public:
  // REQUIRES: length >= 1; at least one tap; finite taps.
  ShortConvolutionSpectra(std::span<const double> taps, int64_t length);

  int64_t length() const override { return length_; }
  absl::StatusOr<double> MaxSpectralNorm(double accuracy,
                                         const CancellationToken& cancellation) override;
  absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                   const CancellationToken& cancellation) override;
  std::vector<double> FrobeniusNorms() override;
  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override;

 private:
  // The position of the short sequence with the same block.
  int64_t Twin(int64_t position) const;
  template <typename T>
  std::vector<T> Spread(const std::vector<T>& values) const;

  int64_t length_;
  LocalSpectra short_;
};

// The band of a convolution with gates, as LocalSpectra takes it [length, taps.size()]:
// T[i, j] = gate_out[i] taps[i - j] gate_in[j]. An empty gate is all ones.
std::vector<double> GatedConvolutionBand(std::span<const double> taps, int64_t length,
                                         std::span<const double> gate_out,
                                         std::span<const double> gate_in);

}  // namespace ess::linalg
