#include "server/linalg/tridiagonal.h"

#include <algorithm>
#include <cmath>

namespace ess::linalg {

// All pivots of T - shift I are negative.
bool Tridiagonal::AllEigenvaluesBelow(double shift) const {
  double pivot = -1;
  for (size_t k = 0; k < diagonal.size(); ++k) {
    const double coupling = k == 0 ? 0 : below[k - 1] * below[k - 1] / pivot;
    pivot = diagonal[k] - shift - coupling;
    if (!(pivot < 0)) return false;
  }
  return true;
}

// By bisection down to neighbouring numbers.
double Tridiagonal::LargestEigenvalue() const {
  double low = *std::max_element(diagonal.begin(), diagonal.end());
  double high = low;
  for (const double coupling : below) high = std::max(high, low + 2 * coupling);
  high *= 1 + 1e-12;
  while (true) {
    const double middle = low + (high - low) / 2;
    if (!(middle > low && middle < high)) return high;
    (AllEigenvaluesBelow(middle) ? high : low) = middle;
  }
}

// Two steps of inverse iteration; shifted just above the spectrum the matrix is definite and needs
// no exchanges.
std::vector<double> Tridiagonal::TopEigenvector(double eigenvalue) const {
  const size_t size = diagonal.size();
  const double shift = eigenvalue * (1 + 1e-13);
  std::vector<double> pivot(size);
  for (size_t k = 0; k < size; ++k) {
    const double coupling = k == 0 ? 0 : below[k - 1] * below[k - 1] / pivot[k - 1];
    pivot[k] = diagonal[k] - shift - coupling;
  }
  std::vector<double> x(size, 1.0);
  for (int step = 0; step < 2; ++step) {
    for (size_t k = 1; k < size; ++k) x[k] -= below[k - 1] / pivot[k - 1] * x[k - 1];
    for (size_t k = size; k-- > 0;) {
      x[k] = (x[k] - (k + 1 < size ? below[k] * x[k + 1] : 0)) / pivot[k];
    }
    double largest = 0;
    for (const double entry : x) largest = std::max(largest, std::abs(entry));
    for (double& entry : x) entry /= largest;
  }
  return x;
}

}  // namespace ess::linalg
