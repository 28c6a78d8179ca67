// The vector operations of Lanczos; most of its time goes into H^T H x, one pass over H.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

// A row-major block of a larger matrix.
struct BlockView {
  const double* data;
  int64_t stride;
  int64_t rows;
  int64_t columns;
};

// image = H x [rows], result = H^T image [columns]. Cost: 4 rows columns operations.
void GramProduct(const BlockView& block, std::span<const double> x, std::span<double> image,
                 std::span<double> result);

// Makes `x` [n] orthogonal to each vector of `basis`, unit vectors one after the other [count, n]:
// subtracts its components, twice. Cost: 8 count n operations.
void Orthogonalize(std::span<const double> basis, std::span<double> x);

double Dot(std::span<const double> x, std::span<const double> y);

// y += factor x
void AddScaled(double factor, std::span<const double> x, std::span<double> y);

}  // namespace ess::linalg
