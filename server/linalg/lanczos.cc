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
constexpr double kRounding = 1e-15;

void Scale(double factor, std::span<double> x) {
  for (double& entry : x) entry *= factor;
}

void Normalize(std::span<double> x) { Scale(1 / std::sqrt(Dot(x, x)), x); }

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
                                                      double accuracy,
                                                      const CancellationToken& cancellation) {
  ESS_CHECK(rows >= 1 && columns >= 1);
  std::vector<double> basis = RandomUnitVector(columns, seed);  // [steps, columns]
  std::vector<double> next(columns);
  TopSingularValue top{.right = std::vector<double>(columns, 0.0),
                       .left = std::vector<double>(rows)};
  Tridiagonal t;
  double eigenvalue = 0;
  for (int step = 0; step < kMaxSteps; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const std::span<const double> last = std::span(basis).last(columns);
    multiply(last, top.left, next);
    t.diagonal.push_back(Dot(last, next));
    Orthogonalize(basis, next);
    const double coupling = std::sqrt(Dot(next, next));
    // The basis spans an invariant space: nothing is left to add.
    const double scale = *std::max_element(t.diagonal.begin(), t.diagonal.end());
    const bool complete = step + 1 == columns || coupling <= kRounding * scale;
    if (complete || (step + 1) % kStepsBetweenChecks == 0) {
      const double before = eigenvalue;
      eigenvalue = t.LargestEigenvalue();
      if (complete || eigenvalue <= before * (1 + accuracy)) break;
    }
    t.below.push_back(coupling);
    Scale(1 / coupling, next);
    basis.insert(basis.end(), next.begin(), next.end());
  }
  t.below.resize(t.diagonal.size() - 1);
  if (!(eigenvalue > 0)) eigenvalue = t.LargestEigenvalue();

  const std::vector<double> weights = t.TopEigenvector(eigenvalue);
  for (size_t k = 0; k < weights.size(); ++k) {
    AddScaled(weights[k], std::span(basis).subspan(k * columns, columns), top.right);
  }
  Normalize(top.right);
  multiply(top.right, top.left, next);
  top.sigma = std::sqrt(Dot(top.left, top.left));
  if (top.sigma > 0) Scale(1 / top.sigma, top.left);
  return top;
}

absl::StatusOr<TopSingularValue> LargestSingularValue(std::span<const double> matrix,
                                                      int64_t length, int64_t position,
                                                      uint64_t seed, double accuracy,
                                                      const CancellationToken& cancellation) {
  ESS_CHECK(position >= 1 && position < length);
  const BlockView block{.data = matrix.data() + position * length,
                        .stride = length,
                        .rows = length - position,
                        .columns = position};
  const auto multiply = [&block](std::span<const double> x, std::span<double> image,
                                 std::span<double> result) {
    GramProduct(block, x, image, result);
  };
  return LargestSingularValue(block.rows, block.columns, multiply, seed, accuracy, cancellation);
}

}  // namespace ess::linalg
