#include "server/operators/diagonal_recurrence.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <complex>
#include <utility>

#include "server/base/log.h"
#include "server/linalg/diagonal_state_space.h"
#include "server/linalg/recurrent_spectra.h"
#include "server/operators/recurrence.h"

namespace ess::operators {

DiagonalRecurrence::DiagonalRecurrence(const at::Tensor& a, const at::Tensor& b,
                                       const at::Tensor& c, bool read_before)
    : dtype_(a.is_complex() || b.is_complex() || c.is_complex() ? at::kComplexDouble : at::kDouble),
      batch_shape_(BatchShape({{a, 2}, {b, 2}, {c, 2}})),
      a_({a, 2}, batch_shape_, dtype_),
      b_({b, 2}, batch_shape_, dtype_),
      c_({c, 2}, batch_shape_, dtype_),
      read_before_(read_before) {
  ESS_CHECK(b_.size(0) == c_.size(0) && b_.size(1) == c_.size(1));
  ESS_CHECK(a_.size(0) == b_.size(0) && (one_gate() || a_.size(1) == b_.size(1)));
}

double DiagonalRecurrence::feature_epsilon() const {
  return std::max({a_.feature_epsilon(), b_.feature_epsilon(), c_.feature_epsilon()});
}

template <typename Scalar>
void DiagonalRecurrence::WriteHead(int64_t head, std::span<double> out) const {
  const int64_t N = b_.size(1);
  const int64_t gates = a_.size(1);
  const Scalar* a = a_.Head<Scalar>(head).data();
  const Scalar* b = b_.Head<Scalar>(head).data();
  const auto advance = [&](int64_t t, StateColumns<Scalar>& state) {
    for (int64_t n = 0; n < N; ++n) {
      const Scalar gate = a[t * gates + (gates == 1 ? 0 : n)];
      for (Scalar& value : state[n]) value *= gate;
    }
  };
  const auto input = [&](int64_t t, int64_t n) { return b[t * N + n]; };
  WriteRecurrence(length(), c_.Head<Scalar>(head), read_before_, advance, input, out);
}

void DiagonalRecurrence::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  if (complex()) {
    WriteHead<std::complex<double>>(head, out);
  } else {
    WriteHead<double>(head, out);
  }
}

at::Tensor DiagonalRecurrence::Apply(const at::Tensor& u) const {
  return ApplyRecurrence(
      u, b_.size(1), read_before_,
      {.advance = [&](int64_t t, const at::Tensor& h) { return a_.At(t).unsqueeze(2) * h; },
       .input = [&](int64_t t) { return b_.At(t); },
       .output = [&](int64_t t) { return c_.At(t); }});
}

const linalg::ChannelRecurrence* DiagonalRecurrence::channel_recurrence() const {
  return !complex() && states() <= kMaxChannelStates ? this : nullptr;
}

void DiagonalRecurrence::FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count,
                                   double* a, double* b, double* c) const {
  const int64_t N = states();
  const int64_t gates = a_.size(1);
  const int64_t known_lanes = std::clamp<int64_t>(head_count() - channel, 0, lanes);
  const int64_t known = std::clamp<int64_t>(length() - first, 0, count);
  std::fill_n(a, count * N * lanes, 1.0);
  std::fill_n(b, count * N * lanes, 0.0);
  std::fill_n(c, count * N * lanes, 0.0);
  for (int64_t lane = 0; lane < known_lanes; ++lane) {
    const double* gate = a_.Real(channel + lane).data() + first * gates;
    const double* in = b_.Real(channel + lane).data() + first * N;
    const double* out = c_.Real(channel + lane).data() + first * N;
    for (int64_t t = 0; t < known; ++t) {
      for (int64_t n = 0; n < N; ++n) {
        const int64_t x = (t * N + n) * lanes + lane;
        a[x] = gate[gates == 1 ? t : t * N + n];
        b[x] = in[t * N + n];
        c[x] = out[t * N + n];
      }
    }
  }
}

absl::Status DiagonalRecurrence::CheckFinite() const {
  return CheckAllFinite({{"a", &a_}, {"b", &b_}, {"c", &c_}});
}

std::unique_ptr<linalg::BlockSpectra> DiagonalRecurrence::NativeSpectra(int64_t head) const {
  const auto numbers = [&](const HeadArray& array) {
    // Complex numbers are pairs of real ones.
    return complex() ? reinterpret_cast<const double*>(array.Complex(head).data())
                     : array.Real(head).data();
  };
  const linalg::DiagonalFactors factors{.length = length(),
                                        .states = b_.size(1),
                                        .scalar_gate = one_gate(),
                                        .reads_before = read_before_,
                                        .a = numbers(a_),
                                        .b = numbers(b_),
                                        .c = numbers(c_)};
  std::unique_ptr<const linalg::StateSpace> space;
  if (complex()) {
    space = std::make_unique<linalg::ComplexDiagonalStateSpace>(factors);
  } else {
    space = std::make_unique<linalg::DiagonalStateSpace>(factors);
  }
  return std::make_unique<linalg::RecurrentSpectra>(std::move(space));
}

}  // namespace ess::operators
