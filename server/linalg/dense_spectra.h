// The dense routes: T as its matrix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/linalg/block_spectra.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/symmetry.h"

namespace ess::linalg {

// One operator at a time; scratch is kept from one to the next.
class DenseSpectra final : public BlockSpectra {
 public:
  // Takes the strictly lower triangle of T, row-major [length, length], finite. `matrix` stays as
  // it is until the last call of another method. Errors: kCancelled, kDeadlineExceeded.
  absl::Status Load(std::span<const double> matrix, int64_t length, Symmetry symmetry,
                    const CancellationToken& cancellation);

  int64_t length() const override { return length_; }
  absl::StatusOr<double> MaxSpectralNorm(const CancellationToken& cancellation) override;
  absl::StatusOr<Spectrum> Compute(const SpectrumRequest& request,
                                   const CancellationToken& cancellation) override;
  std::vector<double> FrobeniusNorms() override;
  absl::StatusOr<std::vector<double>> SingularValues(int64_t position) override;

 private:
  absl::StatusOr<PositionCounts> CountAbove(double tau, const CancellationToken& cancellation);
  absl::Status FillEntropies(const CancellationToken& cancellation, Spectrum& spectrum);

  int64_t length_ = 0;
  double scale_ = 1;            // A power of two.
  std::vector<double> matrix_;  // T / scale_; its largest entry is in [0.5, 1).
  double max_norm_ = -1;        // Of matrix_; negative: not known yet.
  InertiaTree tree_;
};

}  // namespace ess::linalg
