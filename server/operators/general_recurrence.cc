#include "server/operators/general_recurrence.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/recurrent_spectra.h"
#include "server/linalg/stepped_state_space.h"
#include "server/operators/recurrence.h"

namespace ess::operators {

GeneralRecurrence::GeneralRecurrence(const at::Tensor& A, const at::Tensor& b, const at::Tensor& c,
                                     bool read_before)
    : batch_shape_(BatchShape({{A, 3}, {b, 2}, {c, 2}})),
      A_({A, 3}, batch_shape_),
      b_({b, 2}, batch_shape_),
      c_({c, 2}, batch_shape_),
      read_before_(read_before) {
  ESS_CHECK(b_.size(0) == c_.size(0) && b_.size(1) == c_.size(1));
  ESS_CHECK(A_.size(0) == b_.size(0) && A_.size(1) == b_.size(1) && A_.size(2) == b_.size(1));
}

double GeneralRecurrence::feature_epsilon() const {
  return std::max({A_.feature_epsilon(), b_.feature_epsilon(), c_.feature_epsilon()});
}

void GeneralRecurrence::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  const int64_t N = states();
  const double* A = A_.Real(head).data();
  const double* b = b_.Real(head).data();
  StateColumns<double> advanced(N);
  const auto advance = [&](int64_t t, StateColumns<double>& state) {
    for (int64_t n = 0; n < N; ++n) advanced[n] = ColumnDots(A + (t * N + n) * N, state);
    std::swap(state, advanced);
  };
  const auto input = [&](int64_t t, int64_t n) { return b[t * N + n]; };
  WriteRecurrence(length(), c_.Real(head), read_before_, advance, input, out);
}

at::Tensor GeneralRecurrence::Apply(const at::Tensor& u) const {
  return ApplyRecurrence(
      u, states(), read_before_,
      {.advance = [&](int64_t t, const at::Tensor& h) { return at::matmul(A_.At(t), h); },
       .input = [&](int64_t t) { return b_.At(t); },
       .output = [&](int64_t t) { return c_.At(t); }});
}

absl::Status GeneralRecurrence::CheckFinite() const {
  return CheckAllFinite({{"A", &A_}, {"b", &b_}, {"c", &c_}});
}

std::unique_ptr<linalg::BlockSpectra> GeneralRecurrence::NativeSpectra(int64_t head) const {
  const linalg::SteppedFactors factors{.length = length(),
                                       .states = states(),
                                       .reads_before = read_before_,
                                       .b = b_.Real(head).data(),
                                       .c = c_.Real(head).data()};
  return std::make_unique<linalg::RecurrentSpectra>(
      std::make_unique<linalg::GeneralStateSpace>(factors, A_.Real(head).data()));
}

}  // namespace ess::operators
