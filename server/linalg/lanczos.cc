#include "server/linalg/lanczos.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/gram_product.h"
#include "server/linalg/tridiagonal.h"

namespace ess::linalg {
namespace {

constexpr int kMaxSteps = 300;
constexpr int kStepsBetweenChecks = 5;
constexpr double kStandsStill = 1e-15;

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

absl::StatusOr<TopSingularValue> LargestSingularValue(int64_t rows, int64_t columns,
                                                      GramFunction multiply, uint64_t seed,
                                                      const CancellationToken& cancellation) {
  ESS_CHECK(rows >= 1 && columns >= 1);
  std::vector<std::vector<double>> basis = {RandomUnitVector(columns, seed)};
  Tridiagonal t;
  double eigenvalue = 0;
  for (int step = 0; step < kMaxSteps; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    std::vector<double> next(columns);
    std::vector<double> image(rows);
    multiply(basis.back(), image, next);
    t.diagonal.push_back(Dot(basis.back(), next));
    Orthogonalize(basis, next);
    const double coupling = std::sqrt(Dot(next, next));
    // The basis spans an invariant space: nothing is left to add.
    const double scale = *std::max_element(t.diagonal.begin(), t.diagonal.end());
    const bool complete =
        static_cast<int64_t>(basis.size()) == columns || coupling <= kStandsStill * scale;
    if (complete || (step + 1) % kStepsBetweenChecks == 0) {
      const double before = eigenvalue;
      eigenvalue = t.LargestEigenvalue();
      if (complete || eigenvalue <= before * (1 + kStandsStill)) break;
    }
    t.below.push_back(coupling);
    for (double& entry : next) entry /= coupling;
    basis.push_back(std::move(next));
  }
  t.below.resize(t.diagonal.size() - 1);
  if (!(eigenvalue > 0)) eigenvalue = t.LargestEigenvalue();

  const std::vector<double> weights = t.TopEigenvector(eigenvalue);
  TopSingularValue top{.sigma = 0, .right = std::vector<double>(columns, 0.0), .left = {}};
  for (size_t k = 0; k < weights.size(); ++k) {
    for (int64_t c = 0; c < columns; ++c) top.right[c] += weights[k] * basis[k][c];
  }
  Normalize(top.right);
  top.left.resize(rows);
  std::vector<double> unused(columns);
  multiply(top.right, top.left, unused);
  top.sigma = std::sqrt(Dot(top.left, top.left));
  if (top.sigma > 0) {
    for (double& entry : top.left) entry /= top.sigma;
  }
  return top;
}

absl::StatusOr<TopSingularValue> LargestSingularValue(std::span<const double> matrix,
                                                      int64_t length, int64_t position,
                                                      uint64_t seed,
                                                      const CancellationToken& cancellation) {
  ESS_CHECK(position >= 1 && position < length);
  const BlockView block{.data = matrix.data() + position * length,
                        .stride = length,
                        .rows = length - position,
                        .columns = position};
  const auto multiply = [&](std::span<const double> x, std::span<double> image,
                            std::span<double> result) { GramProduct(block, x, image, result); };
  return LargestSingularValue(block.rows, block.columns, multiply, seed, cancellation);
}

}  // namespace ess::linalg
