// Inertia of a small symmetric matrix by an elimination that exchanges rows and columns: right
// where one without exchanges meets small pivots.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

struct SymmetricInertia {
  int64_t negative = 0;   // How many eigenvalues are below 0.
  double largest = 0;     // The largest |entry| that was met: rounding errors are its share.
  bool singular = false;  // A pivot was 0 or no number.
};

// Bunch and Kaufman's diagonal pivoting with pivots of 1 x 1 and 2 x 2 (Math. Comp. 31, 1977).
// `matrix` is symmetric, row-major [size, size], both triangles; it is overwritten.
// Cost: 2/3 size^3 operations, not vectorized by hand.
SymmetricInertia InertiaInPlace(std::span<double> matrix, int64_t size);

}  // namespace ess::linalg
