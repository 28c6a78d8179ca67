#include "server/linalg/tensor_lanczos.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "server/base/status_macros.h"
#include "server/linalg/tridiagonal.h"

namespace ess::linalg {
namespace {

constexpr int kFirstCheck = 8;
constexpr int kStepsBetweenChecks = 16;
// In units of sigma^2 / ||H||_F^2: what is left of an invariant space is rounding.
constexpr double kNothingLeft = 1e-14;

at::Tensor RandomVector(int64_t size, uint64_t seed, const at::Tensor& like) {
  std::mt19937_64 generator(seed + 1);
  std::vector<double> x(size);
  // Not std::normal_distribution: its numbers differ between standard libraries.
  for (double& entry : x) entry = static_cast<double>(generator() >> 11) * 0x1p-53 + 0x1p-10;
  if (seed > 0) {
    for (double& entry : x) entry -= 0.5;
  }
  return at::tensor(x, at::kDouble).to(like.device());
}

// What Lanczos knows of each column after `steps` steps, on the host.
struct Coefficients {
  at::Tensor diagonals;  // [steps, H P]
  at::Tensor couplings;  // [steps, H P]: the last one leads out of the space.

  Tridiagonal Of(int64_t column) const {
    Tridiagonal t;
    const int64_t steps = diagonals.size(0);
    const int64_t columns = diagonals.size(1);
    for (int64_t step = 0; step < steps; ++step) {
      t.diagonal.push_back(diagonals.const_data_ptr<double>()[step * columns + column]);
      if (step + 1 < steps) t.below.push_back(Coupling(step, column));
    }
    return t;
  }
  double Coupling(int64_t step, int64_t column) const {
    return couplings.const_data_ptr<double>()[step * couplings.size(1) + column];
  }
};

Coefficients Fetch(const std::vector<at::Tensor>& diagonals,
                   const std::vector<at::Tensor>& couplings) {
  const auto to_host = [](const std::vector<at::Tensor>& all) {
    return at::stack(all).flatten(1).to(at::kCPU).contiguous();
  };
  return {.diagonals = to_host(diagonals), .couplings = to_host(couplings)};
}

// Unit weights of the Lanczos vectors in the Ritz vector of the largest value.
std::vector<double> RitzWeights(const Tridiagonal& t, double eigenvalue) {
  std::vector<double> weights = t.TopEigenvector(eigenvalue);
  double square = 0;
  for (const double weight : weights) square += weight * weight;
  for (double& weight : weights) weight /= std::sqrt(square);
  return weights;
}

// Sets what has converged, and returns whether all has. `eigenvalues` are of the scaled problems.
bool CheckColumns(const Coefficients& coefficients, double largest_residual,
                  std::vector<double>& eigenvalues, std::vector<uint8_t>& converged) {
  const int64_t last = coefficients.diagonals.size(0) - 1;
  bool all = true;
  for (size_t column = 0; column < converged.size(); ++column) {
    if (converged[column]) continue;  // Later steps only add copies of what it found.
    const Tridiagonal t = coefficients.Of(column);
    eigenvalues[column] = std::max(0.0, t.LargestEigenvalue());
    const double residual = eigenvalues[column] == 0
                                ? 0
                                : coefficients.Coupling(last, column) *
                                      std::abs(RitzWeights(t, eigenvalues[column]).back()) /
                                      eigenvalues[column];
    converged[column] = residual <= largest_residual;
    all = all && converged[column];
  }
  return all;
}

// Batched products of a matrix and a single vector are slow in some libraries.
at::Tensor Multiply(const at::Tensor& matrices, const at::Tensor& vectors) {
  if (vectors.size(2) > 1) return matrices.bmm(vectors);
  const at::Tensor products =
      at::empty({matrices.size(0), matrices.size(1), 1}, matrices.options());
  for (int64_t head = 0; head < matrices.size(0); ++head) {
    at::Tensor product = products[head].squeeze(1);
    at::mv_out(product, matrices[head], vectors[head].squeeze(1));
  }
  return products;
}

// sum_k weights_k v_k for each column.
at::Tensor RitzVectors(const std::vector<at::Tensor>& basis, const Coefficients& coefficients,
                       const std::vector<double>& eigenvalues) {
  const int64_t steps = static_cast<int64_t>(basis.size());
  const int64_t columns = static_cast<int64_t>(eigenvalues.size());
  const at::Tensor weights = at::empty({steps, columns}, at::kDouble);
  for (int64_t column = 0; column < columns; ++column) {
    const Tridiagonal t = coefficients.Of(column);
    const std::vector<double> of_column = RitzWeights(t, t.LargestEigenvalue());
    for (int64_t step = 0; step < steps; ++step) {
      weights.mutable_data_ptr<double>()[step * columns + column] = of_column[step];
    }
  }
  const int64_t heads = basis[0].size(0);
  const at::Tensor on_device =
      weights.view({steps, heads, 1, columns / heads}).to(basis[0].device());
  at::Tensor vectors = at::zeros_like(basis[0]);
  for (int64_t step = 0; step < steps; ++step) vectors.addcmul_(basis[step], on_device[step]);
  return vectors;
}

}  // namespace

absl::Status FindTopSingularValues(const MaskedMatrices& problem, const LanczosOptions& options,
                                   const CancellationToken& cancellation,
                                   TopSingularValues& result) {
  const at::Tensor inverse_scales = problem.scales.reciprocal().unsqueeze(1);  // [H, 1, P]
  const at::Tensor row_weights = problem.row_mask * inverse_scales;
  const at::Tensor column_weights = problem.column_mask * inverse_scales;
  const std::vector<double> scales = [&] {
    const at::Tensor host = problem.scales.to(at::kCPU).contiguous();
    return std::vector<double>(host.const_data_ptr<double>(),
                               host.const_data_ptr<double>() + host.numel());
  }();
  std::vector<double> eigenvalues(scales.size(), 0.0);
  result.converged.assign(scales.size(), 0);

  const int64_t heads = problem.matrices.size(0);
  const int64_t size = problem.matrices.size(2);
  at::Tensor v =
      RandomVector(size, options.seed, problem.matrices).unsqueeze(1) * problem.column_mask;
  v = (v / at::linalg_vector_norm(v, 2, at::IntArrayRef{1}, true))
          .expand({heads, size, problem.scales.size(1)});
  at::Tensor previous;
  std::vector<at::Tensor> basis;
  std::vector<at::Tensor> diagonals;
  std::vector<at::Tensor> couplings;
  int next_check = kFirstCheck;
  for (int step = 1; step <= options.max_steps; ++step) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    if (options.with_vectors) basis.push_back(v);
    const at::Tensor image = Multiply(problem.matrices, v).mul_(row_weights);
    at::Tensor next = Multiply(problem.matrices.mT(), image).mul_(column_weights);
    diagonals.push_back((v * next).sum({1}));  // [H, P]
    next.addcmul_(v, diagonals.back().unsqueeze(1), -1);
    if (step > 1) next.addcmul_(previous, couplings.back().unsqueeze(1), -1);
    at::Tensor coupling = at::linalg_vector_norm(next, 2, at::IntArrayRef{1});
    coupling = at::where(coupling > kNothingLeft, coupling, 0.0);
    couplings.push_back(coupling);
    if (step == next_check || step == options.max_steps) {
      const Coefficients coefficients = Fetch(diagonals, couplings);
      const bool done =
          CheckColumns(coefficients, options.largest_residual, eigenvalues, result.converged);
      if (done || step == options.max_steps) {
        if (options.with_vectors) result.right = RitzVectors(basis, coefficients, eigenvalues);
        break;
      }
      next_check += step < kStepsBetweenChecks ? kFirstCheck : kStepsBetweenChecks;
    }
    // A column with nothing left stays at zero.
    next.mul_(at::where(coupling > 0, coupling.reciprocal(), 0.0).unsqueeze(1));
    previous = v;
    v = next;
  }
  result.sigma.resize(scales.size());
  for (size_t column = 0; column < scales.size(); ++column) {
    result.sigma[column] = std::sqrt(eigenvalues[column]) * scales[column];
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
