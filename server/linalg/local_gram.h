// H_i^T H_i of one position after the other, for an operator whose memory is a window: what needs a
// tolerance of each position's own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/local_matrix.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/tree_workspace.h"
#include "server/linalg/tridiagonal.h"

namespace ess::linalg {

// Going down by one position adds the product of one row with itself and forgets one column, so
// nothing is ever subtracted. Numbers are those of the LocalMatrix. Thread-compatible.
class LocalGram {
 public:
  // `matrix` must outlive this. Memory: 3 (memory + sinks)^2 doubles.
  explicit LocalGram(const LocalMatrix& matrix);

  // `norm`: ||H_position||_F, above 0. REQUIRES: 1 <= position < L.
  // Cost, n = memory + sinks: 2 n^2 operations from position + 1, else memory times that.
  absl::Status MoveTo(int64_t position, double norm, const CancellationToken& cancellation);

  // sigma_1(H_i), at most 1e-11 too small, relative. Lanczos from the vector of the position before
  // and a little noise; then an LDL^T proves that no larger one was missed.
  // Cost: some ten steps of 2 n^2 operations and n^3 / 3.
  absl::StatusOr<double> SpectralNorm(const CancellationToken& cancellation);

  // One count: how many singular values of H_i are above tau. `spectral_norm`: sigma_1(H_i).
  // Cost: n^3 / 3 operations.
  absl::StatusOr<BlockCounts> CountAbove(double tau, double spectral_norm,
                                         const CancellationToken& cancellation);

 private:
  int64_t SlotOf(int64_t column) const;
  // Adds the row's product with itself, of its columns before `end_column`.
  void AddRow(int64_t row, int64_t end_column);
  void Forget(int64_t column);
  absl::Status Build(int64_t position, double norm, const CancellationToken& cancellation);
  void StartLanczos();
  // Multiplies the last vector of the basis, and adds another one if there is any.
  void ExtendBasis();
  void KeepVector(double eigenvalue);
  absl::StatusOr<double> Bisect(double low, const CancellationToken& cancellation);
  // Whether all eigenvalues are below `shift`, proved.
  absl::StatusOr<bool> AllBelow(double shift, const CancellationToken& cancellation);
  // Counts the eigenvalues above `shift`.
  absl::StatusOr<TreeResult> Eliminate(double shift, double* count,
                                       const CancellationToken& cancellation);
  double Noise();

  const LocalMatrix& matrix_;
  const int64_t size_;  // Sinks, then the columns of the band; rounded up to 8 with zeros.
  const int64_t stride_;
  const int64_t max_steps_;
  int64_t position_ = -1;
  double scale_ = 1;  // A power of two that all entries are multiplied by.
  Arena arena_;
  std::optional<ArenaScope> allocated_;  // Of arena_.
  double* gram_ = nullptr;               // [size, stride], both triangles.
  double* row_ = nullptr;                // [size]
  double* vector_ = nullptr;             // [size]: of sigma_1, where it was found last.
  double* basis_ = nullptr;              // [max_steps + 1, size]
  double* shares_ = nullptr;             // [max_steps]
  double* panel_u_ = nullptr;
  double* panel_v_ = nullptr;

  Tridiagonal tridiagonal_;
  double coupling_ = 0;  // Of the last two vectors of the basis; 0: the rest is a space of its own.
  uint64_t noise_ = 0;
};

}  // namespace ess::linalg
