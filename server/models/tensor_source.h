// Where a model takes its weights from: a checkpoint, or the initialisation of its architecture.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ess::models {

// What was taken so far.
struct TensorTotals {
  int64_t bytes = 0;
  int64_t parameters = 0;
  std::string dtype;  // "float32", "bfloat16", "float16"
};

// Names carry no base prefix: "layers.0.mlp.up_proj.weight". Every tensor is taken once. Not
// thread-safe.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual bool Has(std::string_view name) const = 0;

  // A tensor on the model's device, in the model's dtype.
  // Errors: kDataLoss           missing, or of another shape: names the tensor, found and expected.
  //         kResourceExhausted  the device's memory ran out.
  virtual absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) = 0;

  // Leaves out what a checkpoint may carry and the model does not use: names that start like this.
  // A source that makes its tensors has nothing to leave out.
  virtual void IgnorePrefix(std::string_view prefix) {}

  virtual TensorTotals Totals() const = 0;
};

}  // namespace ess::models
