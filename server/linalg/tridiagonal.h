// The symmetric tridiagonal matrix that Lanczos builds.
#pragma once

#include <vector>

namespace ess::linalg {

struct Tridiagonal {
  std::vector<double> diagonal;
  std::vector<double> below;  // One shorter.

  bool AllEigenvaluesBelow(double shift) const;
  // The smallest number found above all eigenvalues.
  double LargestEigenvalue() const;
  // For the largest eigenvalue, its largest entry 1 in magnitude.
  std::vector<double> TopEigenvector(double eigenvalue) const;
};

}  // namespace ess::linalg
