// The dense routes: T as its matrix. Counts at a tolerance go by the inertia tree
// (inertia_tree.h), the rest by windows on a band matrix (band_spectra.h). A Toeplitz matrix is
// asked for the positions up to L / 2 only; the others have the same answers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "server/linalg/band_spectra.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/symmetry.h"

namespace ess::linalg {

// One operator at a time; scratch is kept from one to the next.
class DenseSpectra final : public BlockSpectra {
 public:
  // Takes the strictly lower triangle of T, row-major [length, length], finite, zeros above the
  // diagonal, and divides it by scale() in place; `matrix` stays as it is until the last call of
  // another method, and Compute changes it for a while. The rest is prepared when it is asked for.
  // REQUIRES: `symmetry` is true of the matrix. Errors: kCancelled, kDeadlineExceeded. Memory: 2.7
  // L^2 doubles beside the matrix for everything; 1.6 where 8 divides L.
  absl::Status Load(std::span<double> matrix, int64_t length, Symmetry symmetry,
                    const CancellationToken& cancellation);

  // A power of two.
  double scale() const { return scale_; }

  int64_t length() const override { return length_; }
  absl::StatusOr<double> MaxSpectralNorm(double accuracy,
                                         const CancellationToken& cancellation) override;
  absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                   const CancellationToken& cancellation) override;
  std::vector<double> FrobeniusNorms() override;
  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override;

 private:
  // The inertia tree, with the matrix loaded.
  absl::StatusOr<InertiaTree*> Tree(const CancellationToken& cancellation);
  absl::StatusOr<PositionCounts> CountAbove(double tau, const CancellationToken& cancellation);
  // The part of `request` that band windows answer.
  absl::Status FillByBands(const SpectrumRequest& request, Spectrum& spectrum,
                           const CancellationToken& cancellation);
  absl::Status FillBySvd(const SpectrumRequest& request, Spectrum& spectrum,
                         const CancellationToken& cancellation) const;
  // The positions whose answers are computed: all of [1, L), or up to L / 2 of a Toeplitz matrix.
  PositionRange AskedPositions() const;
  // Gives every other position the answer of the one that has the same singular values.
  template <typename Number>
  void Mirror(std::vector<Number>& values) const;
  void Mirror(PositionCounts& counts) const;
  // ||H_i||_F in units of scale(), for each position.
  std::vector<double> ScaledFrobeniusNorms() const;
  // Turns the matrix over its anti-diagonal, what is below the diagonal. Twice is nothing.
  void TurnMatrix();

  int64_t length_ = 0;
  Symmetry symmetry_ = Symmetry::kNone;
  double scale_ = 1;
  std::span<double> matrix_;             // T / scale_; its largest entry is in [0.5, 1).
  std::optional<double> spectral_norm_;  // max_i sigma_1(H_i) of matrix_, once it is known ...
  double norm_accuracy_ = 0;             // ... to this accuracy.
  bool tree_loaded_ = false;
  InertiaTree tree_;
  BandSpectra bands_;
  // Of a Toeplitz matrix, by min(i, L - i): what SingularValues has found.
  std::vector<std::vector<double>> known_sigma_;
};

}  // namespace ess::linalg
