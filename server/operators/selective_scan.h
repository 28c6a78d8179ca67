// SelectiveScan: Mamba's S6: one small diagonal recurrence per channel, with inputs and outputs
// that all channels share. Source: Gu and Dao 2023 (arXiv:2312.00752), algorithm 2.
//
//   a_t = exp(delta_t A),   b_t = delta_t B_t,   c_t = C_t
//   h_t = a_t * h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  c_t . h_{t-1} (pre-read)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "server/linalg/channel_recurrence.h"
#include "server/linalg/channel_scan.h"
#include "server/operators/head_array.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

// Heads are channels. A layer's [D, L, N] gates are never formed: memory is that of the arguments.
class SelectiveScan final : public SequenceOperator, public linalg::ChannelRecurrence {
 public:
  // `delta` is [..., L], `A` is [..., N] (negative for gates below 1), `B` and `C` are
  // [..., L, N]; leading dimensions broadcast: a layer has delta [D, L], A [D, N], B and C [L, N].
  // Real floating dtypes on any device.
  SelectiveScan(const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
                const at::Tensor& C, bool read_before = false);

  std::string_view class_name() const override { return "SelectiveScan"; }
  int64_t head_count() const override { return delta_.head_count(); }
  int64_t length() const override { return delta_.size(0); }
  StateSize state_size() const override { return StateSize::Constant(states()); }
  double feature_epsilon() const override;
  // Cost: O(L^2 N), and L N exponentials.
  void DenseHead(int64_t head, std::span<double> out) const override;
  // Runs the recurrence: O(L N C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;
  absl::Status CheckFinite() const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;
  const linalg::ChannelRecurrence* channel_recurrence() const override { return this; }

  const HeadArray& delta() const { return delta_; }  // [L]
  const HeadArray& A() const { return A_; }          // [N]
  const HeadArray& B() const { return B_; }          // [L, N]
  const HeadArray& C() const { return C_; }          // [L, N]

  int64_t channels() const override { return head_count(); }  // D
  int64_t states() const override { return A_.size(0); }      // N
  bool reads_before() const override { return read_before_; }
  void FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count, double* a, double* b,
                 double* c) const override;

 private:
  const std::vector<int64_t> batch_shape_;
  const HeadArray delta_;
  const HeadArray A_;
  const HeadArray B_;
  const HeadArray C_;
  const bool read_before_;
  std::vector<linalg::ScanChannel> scan_channels_;  // [D]: into the arrays above.
};

}  // namespace ess::operators
