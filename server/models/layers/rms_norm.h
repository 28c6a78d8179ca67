// y = w * x / sqrt(mean(x^2) + epsilon) over the last axis.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Normalises in float32, goes back to x's dtype, then scales, as transformers' LlamaRMSNorm does.
struct RmsNorm {
  at::Tensor weight;  // [D]
  double epsilon = 0;

  // x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& x) const;
};

// Takes "NAME.weight". Errors: those of TensorSource::Take.
absl::StatusOr<RmsNorm> TakeRmsNorm(TensorSource& source, const std::string& name, int64_t width,
                                    double epsilon);

}  // namespace ess::models
