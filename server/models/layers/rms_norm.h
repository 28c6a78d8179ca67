// y = w * x / sqrt(mean(x^2) + epsilon) over the last axis.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// When the weight multiplies, and how it is stored.
enum class RmsNormKind {
  kLlama,  // Normalises in float32, goes back to x's dtype, then scales.
  kGemma,  // Scales by 1 + stored weight in float32, then goes back.
};

struct RmsNorm {
  at::Tensor weight;  // [D]; float32 and 1 already added for kGemma.
  double epsilon = 0;
  RmsNormKind kind = RmsNormKind::kLlama;

  // x [..., D] => [..., D].
  at::Tensor operator()(const at::Tensor& x) const;
};

// x / sqrt(mean(x^2) + epsilon) over the last axis, in float32, back in x's dtype.
at::Tensor WeightlessRmsNorm(const at::Tensor& x, double epsilon);

// Takes "NAME.weight". Errors: those of TensorSource::Take.
absl::StatusOr<RmsNorm> TakeRmsNorm(TensorSource& source, const std::string& name, int64_t width,
                                    double epsilon, RmsNormKind kind = RmsNormKind::kLlama);

}  // namespace ess::models
