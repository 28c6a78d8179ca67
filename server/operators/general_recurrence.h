// GeneralRecurrence: any linear recurrence, its transitions as full matrices.
//
//   h_t = A_t h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  c_t . h_{t-1} (pre-read)
//   T[i, j] = c_i A_i A_{i-1} ... A_{j+1} b_j   for j <= i; pre-read, without A_i, for j < i
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "server/operators/head_array.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

class GeneralRecurrence final : public SequenceOperator {
 public:
  // `A` is [..., L, N, N], `b` and `c` are [..., L, N]; leading dimensions broadcast. Real floating
  // dtypes on any device.
  GeneralRecurrence(const at::Tensor& A, const at::Tensor& b, const at::Tensor& c,
                    bool read_before = false);

  std::string_view class_name() const override { return "GeneralRecurrence"; }
  int64_t head_count() const override { return b_.head_count(); }
  int64_t length() const override { return b_.size(0); }
  StateSize state_size() const override { return StateSize::Constant(states()); }
  double feature_epsilon() const override;
  // Cost: O(L^2 N^2).
  void DenseHead(int64_t head, std::span<double> out) const override;
  // Runs the recurrence: O(L N^2 C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;
  absl::Status CheckFinite() const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;

  int64_t states() const { return b_.size(1); }  // N
  bool reads_before() const { return read_before_; }
  const HeadArray& A() const { return A_; }  // [L, N, N]
  const HeadArray& b() const { return b_; }  // [L, N]
  const HeadArray& c() const { return c_; }  // [L, N]

 private:
  const std::vector<int64_t> batch_shape_;
  const HeadArray A_;
  const HeadArray b_;
  const HeadArray c_;
  const bool read_before_;
};

}  // namespace ess::operators
