// Convolution: Hyena, long and short convolutions: a Toeplitz operator, with gates on both sides.
//
//   T[i, j] = gate_out_i h_{i-j} gate_in_j   for j <= i
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

class Convolution final : public SequenceOperator {
 public:
  // `h` is [..., K], the gates are [..., L]; leading dimensions broadcast. K <= L: further taps are
  // 0. Without a gate, L = K. Real floating dtypes on any device.
  explicit Convolution(const at::Tensor& h, const std::optional<at::Tensor>& gate_out = {},
                       const std::optional<at::Tensor>& gate_in = {});

  std::string_view class_name() const override { return "Convolution"; }
  int64_t head_count() const override { return h_.head_count(); }
  int64_t length() const override { return length_; }
  // What taps() says: a filter that ends after `taps` positions needs no more than taps - 1 of
  // them, min(i, taps - 1); one that reaches over the whole length needs i.
  StateSize state_size() const override;
  double feature_epsilon() const override;
  // Cost: O(L K).
  void DenseHead(int64_t head, std::span<double> out) const override;
  absl::Status CheckFinite() const override;
  linalg::Symmetry symmetry() const override;
  std::span<const double> InvariantHead(int64_t head) const override;
  std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const override;
  // Cost: O(L K C) per head.
  at::Tensor Apply(const at::Tensor& u) const override;

  // The last tap that is not 0 in every head, counted from 1; 0 for a filter of zeros.
  int64_t taps() const { return taps_; }
  // Whether T[i, j] depends on i - j only.
  bool toeplitz() const { return !gate_out_.has_value() && !gate_in_.has_value(); }
  const HeadArray& h() const { return h_; }                               // [K]
  const std::optional<HeadArray>& gate_out() const { return gate_out_; }  // [L]
  const std::optional<HeadArray>& gate_in() const { return gate_in_; }    // [L]

 private:
  const std::vector<int64_t> batch_shape_;
  const HeadArray h_;
  const std::optional<HeadArray> gate_out_;
  const std::optional<HeadArray> gate_in_;
  const int64_t length_;
  const int64_t taps_;
};

}  // namespace ess::operators
