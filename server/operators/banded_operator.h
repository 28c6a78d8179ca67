// BandedOperator: attention in a sliding window, with or without sinks: columns at the start that
// every position still sees.
//
//   T[i, i - d] = band[i, d]   for d < W
//   T[i, s] = sinks[i, s]      for s < S, where the band does not reach: i - s >= W
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "server/operators/head_array.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

class BandedOperator final : public SequenceOperator {
 public:
  // `band` is [..., L, W], `sinks` [..., L, S]; leading dimensions broadcast. Entries that lie
  // before position 0, and those of `sinks` where the band reaches, are not read. Real floating
  // dtypes on any device.
  explicit BandedOperator(const at::Tensor& band, const std::optional<at::Tensor>& sinks = {});

  std::string_view class_name() const override { return "BandedOperator"; }
  int64_t head_count() const override { return band_.head_count(); }
  int64_t length() const override { return band_.size(0); }
  // min(i, W - 1 + S): what the window forgets at each step, and the sinks.
  StateSize state_size() const override {
    return StateSize::GrowingUpTo(width() - 1 + sink_count());
  }
  double feature_epsilon() const override;
  // Cost: O(L^2), for the zeros.
  void DenseHead(int64_t head, std::span<double> out) const override;
  absl::Status CheckFinite() const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;
  // Cost: O(L (W + S) C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;

  int64_t width() const { return band_.size(1); }                      // W
  int64_t sink_count() const { return sinks_ ? sinks_->size(1) : 0; }  // S
  const HeadArray& band() const { return band_; }                      // [L, W]
  const std::optional<HeadArray>& sinks() const { return sinks_; }     // [L, S]

 private:
  const std::vector<int64_t> batch_shape_;
  const HeadArray band_;
  const std::optional<HeadArray> sinks_;
};

}  // namespace ess::operators
