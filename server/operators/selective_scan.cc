#include "server/operators/selective_scan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "server/base/log.h"
#include "server/linalg/diagonal_state_space.h"
#include "server/linalg/recurrent_spectra.h"
#include "server/operators/recurrence.h"

namespace ess::operators {
namespace {

// One channel with its gates made, for the routes that read single heads.
class ChannelStateSpace final : public linalg::StateSpace {
 public:
  ChannelStateSpace(const linalg::ChannelRecurrence& scan, int64_t channel)
      : a_(scan.length() * scan.states()),
        b_(a_.size()),
        c_(a_.size()),
        space_({.length = scan.length(),
                .states = scan.states(),
                .reads_before = scan.reads_before(),
                .a = a_.data(),
                .b = b_.data(),
                .c = c_.data()}) {
    scan.FillLanes(channel, 1, 0, scan.length(), a_.data(), b_.data(), c_.data());
  }
  int64_t length() const override { return space_.length(); }
  int64_t states() const override { return space_.states(); }
  linalg::TransitionKind transition_kind() const override { return space_.transition_kind(); }
  void FillWindow(int64_t first, int64_t width, linalg::StateWindow& window) const override {
    space_.FillWindow(first, width, window);
  }

 private:
  std::vector<double> a_;  // [L, N] each.
  std::vector<double> b_;
  std::vector<double> c_;
  const linalg::DiagonalStateSpace space_;
};

}  // namespace

SelectiveScan::SelectiveScan(const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
                             const at::Tensor& C, bool read_before)
    : batch_shape_(BatchShape({{delta, 1}, {A, 1}, {B, 2}, {C, 2}})),
      delta_({delta, 1}, batch_shape_),
      A_({A, 1}, batch_shape_),
      B_({B, 2}, batch_shape_),
      C_({C, 2}, batch_shape_),
      read_before_(read_before) {
  ESS_CHECK(B_.size(0) == delta_.size(0) && C_.size(0) == delta_.size(0));
  ESS_CHECK(B_.size(1) == A_.size(0) && C_.size(1) == A_.size(0));
  for (int64_t head = 0; head < head_count(); ++head) {
    scan_channels_.push_back({.steps = delta_.Real(head).data(),
                              .rates = A_.Real(head).data(),
                              .inputs = B_.Real(head).data(),
                              .outputs = C_.Real(head).data()});
  }
}

double SelectiveScan::feature_epsilon() const {
  return std::max(
      {delta_.feature_epsilon(), A_.feature_epsilon(), B_.feature_epsilon(), C_.feature_epsilon()});
}

void SelectiveScan::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  const int64_t N = states();
  const double* delta = delta_.Real(head).data();
  const double* A = A_.Real(head).data();
  const double* B = B_.Real(head).data();
  std::vector<double> gates(length() * N);
  for (int64_t t = 0; t < length(); ++t) {
    for (int64_t n = 0; n < N; ++n) gates[t * N + n] = std::exp(delta[t] * A[n]);
  }
  const auto advance = [&](int64_t t, StateColumns<double>& state) {
    for (int64_t n = 0; n < N; ++n) {
      for (double& value : state[n]) value *= gates[t * N + n];
    }
  };
  const auto input = [&](int64_t t, int64_t n) { return delta[t] * B[t * N + n]; };
  WriteRecurrence(length(), C_.Real(head), read_before_, advance, input, out);
}

at::Tensor SelectiveScan::Apply(const at::Tensor& u) const {
  const at::Tensor A = A_.AllHeads();                                      // [H, N]
  const auto step = [&](int64_t t) { return delta_.At(t).unsqueeze(1); };  // [H, 1]
  const auto advance = [&](int64_t t, const at::Tensor& h) {
    return at::exp(step(t) * A).unsqueeze(2) * h;
  };
  return ApplyRecurrence(u, states(), read_before_,
                         {.advance = advance,
                          .input = [&](int64_t t) { return step(t) * B_.At(t); },
                          .output = [&](int64_t t) { return C_.At(t); }});
}

void SelectiveScan::FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count,
                              double* a, double* b, double* c) const {
  const int64_t row = states() * lanes;
  const int64_t known_lanes = std::clamp<int64_t>(channels() - channel, 0, lanes);
  const int64_t known = std::clamp<int64_t>(length() - first, 0, count);
  const std::span<const linalg::ScanChannel> group =
      std::span(scan_channels_).subspan(known_lanes > 0 ? channel : 0, known_lanes);
  linalg::WriteScanLanes(group, states(), lanes, first, known, a, b, c);
  std::fill_n(a + known * row, (count - known) * row, 1.0);
  std::fill_n(b + known * row, (count - known) * row, 0.0);
  std::fill_n(c + known * row, (count - known) * row, 0.0);
}

absl::Status SelectiveScan::CheckFinite() const {
  return CheckAllFinite({{"delta", &delta_}, {"A", &A_}, {"B", &B_}, {"C", &C_}});
}

std::unique_ptr<linalg::BlockSpectra> SelectiveScan::NativeSpectra(int64_t head) const {
  return std::make_unique<linalg::RecurrentSpectra>(
      std::make_unique<ChannelStateSpace>(*this, head));
}

}  // namespace ess::operators
