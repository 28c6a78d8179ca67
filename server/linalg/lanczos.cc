#include "server/linalg/lanczos.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/gram_product.h"

namespace ess::linalg {
namespace {

constexpr int kMaxSteps = 300;
constexpr int kStepsBetweenChecks = 5;
constexpr double kStandsStill = 1e-15;

// The symmetric tridiagonal matrix that Lanczos builds.
struct Tridiagonal {
  std::vector<double> diagonal;
  std::vector<double> below;  // One shorter.
};

// Whether every eigenvalue is below `shift`: all pivots of T - shift I are negative.
bool AllEigenvaluesBelow(const Tridiagonal& t, double shift) {
  double pivot = -1;
  for (size_t k = 0; k < t.diagonal.size(); ++k) {
    const double coupling = k == 0 ? 0 : t.below[k - 1] * t.below[k - 1] / pivot;
    pivot = t.diagonal[k] - shift - coupling;
    if (!(pivot < 0)) return false;
  }
  return true;
}

// Smallest number found above all eigenvalues, by bisection down to neighbouring numbers.
double LargestEigenvalue(const Tridiagonal& t) {
  double low = *std::max_element(t.diagonal.begin(), t.diagonal.end());
  double high = low;
  for (const double coupling : t.below) high = std::max(high, low + 2 * coupling);
  high *= 1 + 1e-12;
  while (true) {
    const double middle = low + (high - low) / 2;
    if (!(middle > low && middle < high)) return high;
    (AllEigenvaluesBelow(t, middle) ? high : low) = middle;
  }
}

// Eigenvector for the largest eigenvalue by two steps of inverse iteration; shifted just above the
// spectrum the matrix is definite and needs no exchanges.
std::vector<double> TopEigenvector(const Tridiagonal& t, double eigenvalue) {
  const size_t size = t.diagonal.size();
  const double shift = eigenvalue * (1 + 1e-13);
  std::vector<double> pivot(size);
  for (size_t k = 0; k < size; ++k) {
    const double coupling = k == 0 ? 0 : t.below[k - 1] * t.below[k - 1] / pivot[k - 1];
    pivot[k] = t.diagonal[k] - shift - coupling;
  }
  std::vector<double> x(size, 1.0);
  for (int step = 0; step < 2; ++step) {
    for (size_t k = 1; k < size; ++k) x[k] -= t.below[k - 1] / pivot[k - 1] * x[k - 1];
    for (size_t k = size; k-- > 0;) {
      x[k] = (x[k] - (k + 1 < size ? t.below[k] * x[k + 1] : 0)) / pivot[k];
    }
    double largest = 0;
    for (const double entry : x) largest = std::max(largest, std::abs(entry));
    for (double& entry : x) entry /= largest;
  }
  return x;
}

double Dot(std::span<const double> x, std::span<const double> y) {
  double sum = 0;
  for (size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
  return sum;
}

void Normalize(std::vector<double>& x) {
  const double norm = std::sqrt(Dot(x, x));
  for (double& entry : x) entry /= norm;
}

void Orthogonalize(const std::vector<std::vector<double>>& basis, std::vector<double>& x) {
  for (int pass = 0; pass < 2; ++pass) {
    for (const std::vector<double>& direction : basis) {
      const double share = Dot(direction, x);
      for (size_t k = 0; k < x.size(); ++k) x[k] -= share * direction[k];
    }
  }
}

std::vector<double> RandomUnitVector(int64_t size, uint64_t seed) {
  std::mt19937_64 generator(seed + 1);
  std::vector<double> x(size);
  // Not std::normal_distribution: its numbers differ between standard libraries.
  for (double& entry : x) entry = static_cast<double>(generator() >> 11) * 0x1p-53 + 0x1p-10;
  if (seed > 0) {
    for (double& entry : x) entry -= 0.5;
  }
  Normalize(x);
  return x;
}

}  // namespace

absl::StatusOr<TopSingularValue> LargestSingularValue(std::span<const double> matrix,
                                                      int64_t length, int64_t position,
                                                      uint64_t seed,
                                                      const CancellationToken& cancellation) {
  ESS_CHECK(position >= 1 && position < length);
  const BlockView block{.data = matrix.data() + position * length,
                        .stride = length,
                        .rows = length - position,
                        .columns = position};
  std::vector<std::vector<double>> basis = {RandomUnitVector(position, seed)};
  Tridiagonal t;
  double eigenvalue = 0;
  for (int step = 0; step < kMaxSteps; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    std::vector<double> next(position);
    std::vector<double> image(block.rows);
    GramProduct(block, basis.back(), image, next);
    t.diagonal.push_back(Dot(basis.back(), next));
    Orthogonalize(basis, next);
    const double coupling = std::sqrt(Dot(next, next));
    // The basis spans an invariant space: nothing is left to add.
    const double scale = *std::max_element(t.diagonal.begin(), t.diagonal.end());
    const bool complete =
        static_cast<int64_t>(basis.size()) == position || coupling <= kStandsStill * scale;
    if (complete || (step + 1) % kStepsBetweenChecks == 0) {
      const double before = eigenvalue;
      eigenvalue = LargestEigenvalue(t);
      if (complete || eigenvalue <= before * (1 + kStandsStill)) break;
    }
    t.below.push_back(coupling);
    for (double& entry : next) entry /= coupling;
    basis.push_back(std::move(next));
  }
  t.below.resize(t.diagonal.size() - 1);
  if (!(eigenvalue > 0)) eigenvalue = LargestEigenvalue(t);

  const std::vector<double> weights = TopEigenvector(t, eigenvalue);
  TopSingularValue top{.sigma = 0, .right = std::vector<double>(position, 0.0), .left = {}};
  for (size_t k = 0; k < weights.size(); ++k) {
    for (int64_t c = 0; c < position; ++c) top.right[c] += weights[k] * basis[k][c];
  }
  Normalize(top.right);
  top.left.resize(block.rows);
  std::vector<double> unused(position);
  GramProduct(block, top.right, top.left, unused);
  top.sigma = std::sqrt(Dot(top.left, top.left));
  if (top.sigma > 0) {
    for (double& entry : top.left) entry /= top.sigma;
  }
  return top;
}

}  // namespace ess::linalg
