// Random weights of whatever shapes a model asks for, in place of a checkpoint.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "server/models/tensor_source.h"

namespace ess::testing {

// Matrices are normal with a variance that keeps activations near one; vectors are near a half,
// which suits norms that add 1 to them too. Remembers what was taken. The same seed and order of
// names give the same weights.
class RandomTensors final : public models::TensorSource {
 public:
  explicit RandomTensors(uint64_t seed)
      : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}

  // Everything but an output head: it is the embedding.
  bool Has(std::string_view name) const override {
    return name != "lm_head.weight" && name != "embed_out.weight";
  }

  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override {
    at::Tensor tensor = at::randn(shape, generator_, at::kFloat);
    if (shape.size() == 1) {
      tensor.mul_(0.1).add_(0.5);
    } else {
      tensor.mul_(1.5 / std::sqrt(static_cast<double>(shape.back())));
    }
    taken_[std::string(name)] = tensor;
    return tensor;
  }

  models::TensorTotals Totals() const override {
    models::TensorTotals totals{.dtype = "float32"};
    for (const auto& [name, tensor] : taken_) {
      totals.parameters += tensor.numel();
      totals.bytes += static_cast<int64_t>(tensor.nbytes());
    }
    return totals;
  }

  const std::map<std::string, at::Tensor>& taken() const { return taken_; }

 private:
  at::Generator generator_;
  std::map<std::string, at::Tensor> taken_;
};

}  // namespace ess::testing
