// DenseOperator: the operator as its matrix, as attention makes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "server/operators/sequence_operator.h"

namespace ess::operators {

// T[i, j] = maps[head, i, j] for j <= i. Entries above the diagonal are taken as zero, whatever
// the tensor holds there.
class DenseOperator final : public SequenceOperator {
 public:
  // `maps` is [H, L, L], of any floating dtype, on any device; it is shared, not copied.
  DenseOperator(at::Tensor maps, StateSize state_size);

  std::string_view class_name() const override { return "DenseOperator"; }
  int64_t head_count() const override { return maps_.size(0); }
  int64_t length() const override { return maps_.size(1); }
  StateSize state_size() const override { return state_size_; }
  double feature_epsilon() const override;
  void DenseHead(int64_t head, std::span<double> out) const override;
  at::Tensor Apply(const at::Tensor& u) const override;
  const at::Tensor* dense_maps() const override { return &maps_; }

 private:
  const at::Tensor maps_;
  const StateSize state_size_;
};

}  // namespace ess::operators
