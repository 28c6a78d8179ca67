// What one would try next after an SVD at every position: count the eigenvalues of the smaller Gram
// matrix of each block above tau^2, by the signs of an LDL^T (Sylvester's law), with LAPACK through
// LibTorch. One tolerance.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace ess::benchmarks {

// Everything is done in its favour: the Gram matrix, H^T H up to the middle and H H^T after it, is
// carried from position to position, by additions only, and between the positions that are looked
// at in one product.
class GramRival {
 public:
  // `matrix` is T, row-major [length, length], and outlives it; positions ascending.
  GramRival(std::span<const double> matrix, int64_t length, std::vector<int64_t> positions,
            double tau);

  // On the calling thread alone. May be repeated.
  void Run();

  // What all positions would take: the Gram matrices, and the mean LDL^T, the fastest run of each,
  // times L - 1.
  double Seconds() const;
  // At the positions, after Run.
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  void Factor(const at::Tensor& gram, size_t index);

  const std::span<const double> matrix_;
  const int64_t length_;
  const std::vector<int64_t> positions_;
  const double tau_;
  std::vector<int64_t> counts_;
  std::vector<double> factor_seconds_;
  double gram_seconds_;
};

}  // namespace ess::benchmarks
