#include "server/operators/delta_recurrence.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/delta_state_space.h"
#include "server/linalg/recurrent_spectra.h"
#include "server/operators/recurrence.h"

namespace ess::operators {

DeltaRecurrence::DeltaRecurrence(const at::Tensor& alpha, const at::Tensor& beta,
                                 const at::Tensor& k, const at::Tensor& c, bool read_before)
    : batch_shape_(BatchShape({{alpha, 1}, {beta, 1}, {k, 2}, {c, 2}})),
      alpha_({alpha, 1}, batch_shape_),
      beta_({beta, 1}, batch_shape_),
      k_({k, 2}, batch_shape_),
      c_({c, 2}, batch_shape_),
      read_before_(read_before) {
  ESS_CHECK(alpha_.size(0) == k_.size(0) && beta_.size(0) == k_.size(0));
  ESS_CHECK(c_.size(0) == k_.size(0) && c_.size(1) == k_.size(1));
}

double DeltaRecurrence::feature_epsilon() const {
  return std::max({alpha_.feature_epsilon(), beta_.feature_epsilon(), k_.feature_epsilon(),
                   c_.feature_epsilon()});
}

void DeltaRecurrence::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  const int64_t N = states();
  const double* alpha = alpha_.Real(head).data();
  const double* beta = beta_.Real(head).data();
  const double* k = k_.Real(head).data();
  const auto advance = [&](int64_t t, StateColumns<double>& state) {
    const double* key = k + t * N;
    const std::array<double, kColumns> stored = ColumnDots(key, state);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t column = 0; column < kColumns; ++column) {
        state[n][column] = alpha[t] * (state[n][column] - beta[t] * key[n] * stored[column]);
      }
    }
  };
  const auto input = [&](int64_t t, int64_t n) { return beta[t] * k[t * N + n]; };
  WriteRecurrence(length(), c_.Real(head), read_before_, advance, input, out);
}

at::Tensor DeltaRecurrence::Apply(const at::Tensor& u) const {
  const auto advance = [&](int64_t t, const at::Tensor& h) {
    const at::Tensor key = k_.At(t).unsqueeze(2);            // [H, N, 1]
    const at::Tensor stored = (key * h).sum(1, true);        // [H, 1, C]
    const at::Tensor alpha = alpha_.At(t).view({-1, 1, 1});  // [H, 1, 1]
    const at::Tensor beta = beta_.At(t).view({-1, 1, 1});    // [H, 1, 1]
    return alpha * (h - beta * key * stored);
  };
  return ApplyRecurrence(u, states(), read_before_,
                         {.advance = advance,
                          .input = [&](int64_t t) { return beta_.At(t).unsqueeze(1) * k_.At(t); },
                          .output = [&](int64_t t) { return c_.At(t); }});
}

absl::Status DeltaRecurrence::CheckFinite() const {
  return CheckAllFinite({{"alpha", &alpha_}, {"beta", &beta_}, {"k", &k_}, {"c", &c_}});
}

std::unique_ptr<linalg::BlockSpectra> DeltaRecurrence::NativeSpectra(int64_t head) const {
  return std::make_unique<linalg::RecurrentSpectra>(std::make_unique<linalg::DeltaStateSpace>(
      linalg::DeltaFactors{.length = length(),
                           .states = states(),
                           .reads_before = read_before_,
                           .alpha = alpha_.Real(head).data(),
                           .beta = beta_.Real(head).data(),
                           .k = k_.Real(head).data(),
                           .c = c_.Real(head).data()}));
}

}  // namespace ess::operators
