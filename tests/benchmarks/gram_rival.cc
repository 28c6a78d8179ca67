#include "tests/benchmarks/gram_rival.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "server/base/serial_torch.h"
#include "server/ess/reference_ess.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

// Eigenvalues above 0 of the block diagonal matrix that LAPACK's sytrf leaves: a negative pivot
// index, twice, marks a block of 2 x 2.
int64_t PositiveEigenvalues(const at::Tensor& factor, const at::Tensor& pivots) {
  const auto entry = factor.accessor<double, 2>();
  const auto pivot = pivots.accessor<int32_t, 1>();
  int64_t positive = 0;
  for (int64_t k = 0; k < factor.size(0); ++k) {
    if (pivot[k] > 0) {
      positive += entry[k][k] > 0;
      continue;
    }
    const double determinant =
        entry[k][k] * entry[k + 1][k + 1] - entry[k + 1][k] * entry[k + 1][k];
    const double trace = entry[k][k] + entry[k + 1][k + 1];
    positive += determinant < 0 ? 1 : (trace > 0 ? 2 : 0);
    ++k;
  }
  return positive;
}

}  // namespace

GramRival::GramRival(std::span<const double> matrix, int64_t length, std::vector<int64_t> positions,
                     double tau)
    : matrix_(matrix),
      length_(length),
      positions_(std::move(positions)),
      tau_(tau * (1 + kTieNudge)),
      counts_(positions_.size()),
      factor_seconds_(positions_.size(), kNotYet),
      gram_seconds_(kNotYet) {}

void GramRival::Factor(const at::Tensor& gram, size_t index) {
  const double start = Now();
  at::Tensor shifted = gram.clone();
  shifted.diagonal().sub_(tau_ * tau_);
  const auto [factor, pivots] = at::linalg_ldl_factor(shifted);
  counts_[index] = PositiveEigenvalues(factor, pivots);
  factor_seconds_[index] = std::min(factor_seconds_[index], Now() - start);
}

void GramRival::Run() {
  const SerialTorch serial;
  const at::Tensor T = at::from_blob(const_cast<double*>(matrix_.data()), {length_, length_},
                                     at::TensorOptions(at::kDouble));
  const size_t left_count =
      std::partition_point(positions_.begin(), positions_.end(),
                           [&](int64_t position) { return 2 * position <= length_; }) -
      positions_.begin();
  double seconds = 0;
  // `rows` [r, m]: adds rows^T rows to the leading m x m of the Gram matrix, which is all that is
  // left of it.
  at::Tensor gram;
  const auto add = [&](const at::Tensor& rows) {
    const double start = Now();
    const int64_t size = rows.size(1);
    if (!gram.defined()) {
      gram = at::mm(rows.t(), rows);
    } else {
      gram = gram.narrow(0, 0, size).narrow(1, 0, size);
      gram.addmm_(rows.t(), rows);
    }
    seconds += Now() - start;
  };
  int64_t end = length_;
  for (size_t k = left_count; k-- > 0; end = positions_[k]) {
    add(T.slice(0, positions_[k], end).slice(1, 0, positions_[k]));
    Factor(gram, k);
  }
  // Turned over, so that the rows which stay come first.
  gram.reset();
  int64_t begin = 0;
  for (size_t k = left_count; k < positions_.size(); begin = positions_[k], ++k) {
    const double start = Now();
    const at::Tensor columns = T.slice(0, positions_[k]).slice(1, begin, positions_[k]);
    const at::Tensor turned = columns.flip(0).t();
    seconds += Now() - start;
    add(turned);
    Factor(gram, k);
  }
  gram_seconds_ = std::min(gram_seconds_, seconds);
}

double GramRival::Seconds() const {
  const double sum = std::accumulate(factor_seconds_.begin(), factor_seconds_.end(), 0.0);
  return gram_seconds_ +
         sum * static_cast<double>(length_ - 1) / static_cast<double>(positions_.size());
}

}  // namespace ess::benchmarks
