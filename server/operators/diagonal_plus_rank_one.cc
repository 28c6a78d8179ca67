#include "server/operators/diagonal_plus_rank_one.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/rank_one_state_space.h"
#include "server/linalg/recurrent_spectra.h"
#include "server/operators/recurrence.h"

namespace ess::operators {

DiagonalPlusRankOne::DiagonalPlusRankOne(const at::Tensor& w, const at::Tensor& p,
                                         const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& c, bool read_before)
    : batch_shape_(BatchShape({{w, 2}, {p, 2}, {q, 2}, {k, 2}, {c, 2}})),
      w_({w, 2}, batch_shape_),
      p_({p, 2}, batch_shape_),
      q_({q, 2}, batch_shape_),
      k_({k, 2}, batch_shape_),
      c_({c, 2}, batch_shape_),
      read_before_(read_before) {
  for (const HeadArray* array : {&w_, &p_, &q_, &c_}) {
    ESS_CHECK(array->size(0) == k_.size(0) && array->size(1) == k_.size(1));
  }
}

double DiagonalPlusRankOne::feature_epsilon() const {
  return std::max({w_.feature_epsilon(), p_.feature_epsilon(), q_.feature_epsilon(),
                   k_.feature_epsilon(), c_.feature_epsilon()});
}

void DiagonalPlusRankOne::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  const int64_t N = states();
  const double* w = w_.Real(head).data();
  const double* p = p_.Real(head).data();
  const double* q = q_.Real(head).data();
  const double* k = k_.Real(head).data();
  const auto advance = [&](int64_t t, StateColumns<double>& state) {
    const std::array<double, kColumns> along = ColumnDots(q + t * N, state);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t column = 0; column < kColumns; ++column) {
        state[n][column] = w[t * N + n] * state[n][column] + p[t * N + n] * along[column];
      }
    }
  };
  const auto input = [&](int64_t t, int64_t n) { return k[t * N + n]; };
  WriteRecurrence(length(), c_.Real(head), read_before_, advance, input, out);
}

at::Tensor DiagonalPlusRankOne::Apply(const at::Tensor& u) const {
  const auto advance = [&](int64_t t, const at::Tensor& h) {
    const at::Tensor along = (q_.At(t).unsqueeze(2) * h).sum(1, true);  // [H, 1, C]
    return w_.At(t).unsqueeze(2) * h + p_.At(t).unsqueeze(2) * along;
  };
  return ApplyRecurrence(u, states(), read_before_,
                         {.advance = advance,
                          .input = [&](int64_t t) { return k_.At(t); },
                          .output = [&](int64_t t) { return c_.At(t); }});
}

absl::Status DiagonalPlusRankOne::CheckFinite() const {
  return CheckAllFinite({{"w", &w_}, {"p", &p_}, {"q", &q_}, {"k", &k_}, {"c", &c_}});
}

std::unique_ptr<linalg::BlockSpectra> DiagonalPlusRankOne::NativeSpectra(int64_t head) const {
  return std::make_unique<linalg::RecurrentSpectra>(
      std::make_unique<linalg::DiagonalPlusRankOneStateSpace>(
          linalg::RankOneFactors{.length = length(),
                                 .states = states(),
                                 .reads_before = read_before_,
                                 .w = w_.Real(head).data(),
                                 .p = p_.Real(head).data(),
                                 .q = q_.Real(head).data(),
                                 .k = k_.Real(head).data(),
                                 .c = c_.Real(head).data()}));
}

}  // namespace ess::operators
