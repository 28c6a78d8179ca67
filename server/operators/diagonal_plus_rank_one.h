// DiagonalPlusRankOne: RWKV-7: a diagonal transition with one rotated or overwritten direction.
//
//   A_t = diag(w_t) + p_t q_t^T,   b_t = k_t
//   h_t = A_t h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  c_t . h_{t-1} (pre-read)
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

class DiagonalPlusRankOne final : public SequenceOperator {
 public:
  // All are [..., L, N]; leading dimensions broadcast. Real floating dtypes on any device.
  DiagonalPlusRankOne(const at::Tensor& w, const at::Tensor& p, const at::Tensor& q,
                      const at::Tensor& k, const at::Tensor& c, bool read_before = false);

  std::string_view class_name() const override { return "DiagonalPlusRankOne"; }
  int64_t head_count() const override { return k_.head_count(); }
  int64_t length() const override { return k_.size(0); }
  StateSize state_size() const override { return StateSize::Constant(states()); }
  double feature_epsilon() const override;
  // Cost: O(L^2 N).
  void DenseHead(int64_t head, std::span<double> out) const override;
  // Runs the recurrence: O(L N C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;
  absl::Status CheckFinite() const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;

  int64_t states() const { return k_.size(1); }  // N
  bool reads_before() const { return read_before_; }
  const HeadArray& w() const { return w_; }  // [L, N]
  const HeadArray& p() const { return p_; }  // [L, N]
  const HeadArray& q() const { return q_; }  // [L, N]
  const HeadArray& k() const { return k_; }  // [L, N]
  const HeadArray& c() const { return c_; }  // [L, N]

 private:
  const std::vector<int64_t> batch_shape_;
  const HeadArray w_;
  const HeadArray p_;
  const HeadArray q_;
  const HeadArray k_;
  const HeadArray c_;
  const bool read_before_;
};

}  // namespace ess::operators
