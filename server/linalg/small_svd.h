// Singular values of one small square matrix, without LibTorch: Householder reflections to a
// bidiagonal matrix, then bisection by Sturm counts.
#pragma once

#include <cstdint>
#include <vector>

namespace ess::linalg {

// Upper bidiagonal [n, n].
struct Bidiagonal {
  std::vector<double> diagonal;  // [n]
  std::vector<double> above;     // [n - 1]
  double bound = 0;              // No singular value is above it.
};

// Destroys `matrix`, row-major [size, size]; its entries are at most about 1. Singular values are
// kept to about 1e-15 of the largest. Cost: 8/3 size^3 operations.
Bidiagonal Bidiagonalize(std::vector<double>& matrix, int64_t size);

// How many singular values are above `threshold` >= 0.
int64_t CountAbove(const Bidiagonal& matrix, double threshold);

// The `count` largest singular values in descending order, right to 1e-15 of the largest.
// Cost: about 100 size count divisions, some side by side.
std::vector<double> LargestSingularValues(const Bidiagonal& matrix, int64_t count);

}  // namespace ess::linalg
