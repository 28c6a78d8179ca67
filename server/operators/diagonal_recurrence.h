// DiagonalRecurrence: linear attention, GLA, RetNet, S4D, Mamba: a diagonal state transition.
//
//   h_t = a_t * h_{t-1} + b_t u_t,   y_t = c_t . h_t            (post-read: y_t sees u_t)
//   T[i, j] = sum_n c[i, n] (a[i, n] a[i-1, n] ... a[j+1, n]) b[j, n]   for j <= i
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "server/operators/sequence_operator.h"

namespace ess::operators {

// Decays are products of the gates between j and i, never quotients of cumulative products, so a
// gate of zero, or a product that underflows, gives entries that are right to rounding.
class DiagonalRecurrence final : public SequenceOperator {
 public:
  // `a` is [H, L, N], or [H, L, 1] for one gate per position; `b` and `c` are [H, L, N]. Real
  // floating dtypes on any device; kept as float64 on the CPU.
  DiagonalRecurrence(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c);

  std::string_view class_name() const override { return "DiagonalRecurrence"; }
  int64_t head_count() const override { return b_.size(0); }
  int64_t length() const override { return b_.size(1); }
  StateSize state_size() const override { return StateSize::Constant(b_.size(2)); }
  double feature_epsilon() const override { return feature_epsilon_; }
  // Cost: O(L^2 N).
  void DenseHead(int64_t head, std::span<double> out) const override;
  // Runs the recurrence: O(L N C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;

 private:
  const at::Tensor a_;  // [H, L, N] or [H, L, 1]
  const at::Tensor b_;  // [H, L, N]
  const at::Tensor c_;  // [H, L, N]
  const double feature_epsilon_;
};

}  // namespace ess::operators
