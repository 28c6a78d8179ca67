#include "server/operators/diagonal_recurrence.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "server/base/log.h"
#include "server/operators/feature_dtype.h"

namespace ess::operators {
namespace {

at::Tensor Float64OnCpu(const at::Tensor& tensor) {
  ESS_CHECK(tensor.dim() == 3 && tensor.is_floating_point());
  return tensor.to(at::kCPU, at::kDouble).contiguous();
}

double Dot(const double* x, const double* y, int64_t count) {
  double sum = 0;
  for (int64_t n = 0; n < count; ++n) sum += x[n] * y[n];
  return sum;
}

}  // namespace

DiagonalRecurrence::DiagonalRecurrence(const at::Tensor& a, const at::Tensor& b,
                                       const at::Tensor& c)
    : a_(Float64OnCpu(a)),
      b_(Float64OnCpu(b)),
      c_(Float64OnCpu(c)),
      feature_epsilon_(std::max({FeatureEpsilon(a.scalar_type()), FeatureEpsilon(b.scalar_type()),
                                 FeatureEpsilon(c.scalar_type())})) {
  ESS_CHECK(b_.sizes() == c_.sizes());
  ESS_CHECK(a_.size(0) == b_.size(0) && a_.size(1) == b_.size(1));
  ESS_CHECK(a_.size(2) == b_.size(2) || a_.size(2) == 1);
}

void DiagonalRecurrence::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(head >= 0 && head < head_count());
  const int64_t L = length();
  const int64_t N = b_.size(2);
  ESS_CHECK(static_cast<int64_t>(out.size()) == L * L);
  const double* a = a_.const_data_ptr<double>() + head * L * a_.size(2);
  const double* b = b_.const_data_ptr<double>() + head * L * N;
  const double* c = c_.const_data_ptr<double>() + head * L * N;
  const bool one_gate = a_.size(2) == 1;

  // Row j of `decayed` is b_j times the gates of the rows passed since: what is left of input j.
  std::vector<double> decayed(one_gate ? L : L * N);
  for (int64_t i = 0; i < L; ++i) {
    double* row = out.data() + i * L;
    for (int64_t j = 0; j < i; ++j) {
      if (one_gate) {
        decayed[j] *= a[i];
        row[j] = decayed[j] * Dot(c + i * N, b + j * N, N);
      } else {
        double* left = decayed.data() + j * N;
        for (int64_t n = 0; n < N; ++n) left[n] *= a[i * N + n];
        row[j] = Dot(c + i * N, left, N);
      }
    }
    if (one_gate) {
      decayed[i] = 1;
    } else {
      std::copy_n(b + i * N, N, decayed.begin() + i * N);
    }
    row[i] = Dot(c + i * N, b + i * N, N);
    std::fill(row + i + 1, row + L, 0.0);
  }
}

at::Tensor DiagonalRecurrence::Apply(const at::Tensor& u) const {
  at::Tensor state = at::zeros({head_count(), b_.size(2), u.size(2)}, u.options());  // [H, N, C]
  at::Tensor y = at::empty_like(u);                                                  // [H, L, C]
  for (int64_t t = 0; t < length(); ++t) {
    // [H, N, 1] * [H, N, C] + [H, N, 1] * [H, 1, C] => [H, N, C]
    state = a_.select(1, t).unsqueeze(2) * state +
            b_.select(1, t).unsqueeze(2) * u.select(1, t).unsqueeze(1);
    y.select(1, t).copy_((c_.select(1, t).unsqueeze(2) * state).sum(1));
  }
  return y;
}

}  // namespace ess::operators
