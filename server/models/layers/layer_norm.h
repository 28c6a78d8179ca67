// y = w * (x - mean) / sqrt(variance + epsilon) + b over the last axis, biased variance.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct LayerNorm {
  at::Tensor weight;  // [D]
  at::Tensor bias;    // [D], or undefined
  double epsilon = 0;

  // x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& x) const;

  // Each head by its own mean and variance, in float32: y [L, H, D / H] => [L, D].
  at::Tensor Heads(const at::Tensor& y) const;
};

// Takes "NAME.weight" and, with `bias`, "NAME.bias". Errors: those of TensorSource::Take.
absl::StatusOr<LayerNorm> TakeLayerNorm(TensorSource& source, const std::string& name,
                                        int64_t width, double epsilon, bool bias = true);

}  // namespace ess::models
