// DiagonalRecurrence: linear attention, GLA, RetNet, S4D, Mamba-2: a diagonal state transition.
//
//   h_t = a_t * h_{t-1} + b_t u_t,   y_t = Re(c_t . h_t)        (post-read: y_t sees u_t)
//   T[i, j] = Re sum_n c[i, n] (a[i, n] a[i-1, n] ... a[j+1, n]) b[j, n]   for j <= i
//
// Pre-read, y_t = Re(c_t . h_{t-1}): the factor a[i, n] is absent, and T[i, i] = 0.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "server/linalg/channel_recurrence.h"
#include "server/operators/head_array.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

class DiagonalRecurrence final : public SequenceOperator, public linalg::ChannelRecurrence {
 public:
  // Above this, heads are no channels: a state of their own each is the better route.
  static constexpr int64_t kMaxChannelStates = 32;

  // `a` is [..., L, N], or [..., L, 1] for one gate per position; `b` and `c` are [..., L, N].
  // Leading dimensions broadcast. Any floating or complex dtype on any device; one complex argument
  // makes all of them complex.
  DiagonalRecurrence(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c,
                     bool read_before = false);

  std::string_view class_name() const override { return "DiagonalRecurrence"; }
  int64_t head_count() const override { return b_.head_count(); }
  int64_t length() const override { return b_.size(0); }
  StateSize state_size() const override { return StateSize::Constant(states()); }
  double feature_epsilon() const override;
  // Cost: O(L^2 N).
  void DenseHead(int64_t head, std::span<double> out) const override;
  // Runs the recurrence: O(L N C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;
  absl::Status CheckFinite() const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;
  const linalg::ChannelRecurrence* channel_recurrence() const override;

  bool complex() const { return dtype_ == at::ScalarType::ComplexDouble; }
  // One gate for all states of a position.
  bool one_gate() const { return a_.size(1) == 1; }
  const HeadArray& a() const { return a_; }  // [L, N] or [L, 1]
  const HeadArray& b() const { return b_; }  // [L, N]
  const HeadArray& c() const { return c_; }  // [L, N]

  // As linalg::ChannelRecurrence: the heads are the channels. REQUIRES: channel_recurrence().
  int64_t channels() const override { return head_count(); }
  int64_t states() const override { return b_.size(1) * (complex() ? 2 : 1); }
  bool reads_before() const override { return read_before_; }
  void FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count, double* a, double* b,
                 double* c) const override;

 private:
  template <typename Scalar>
  void WriteHead(int64_t head, std::span<double> out) const;

  const at::ScalarType dtype_;
  const std::vector<int64_t> batch_shape_;
  const HeadArray a_;
  const HeadArray b_;
  const HeadArray c_;
  const bool read_before_;
};

}  // namespace ess::operators
