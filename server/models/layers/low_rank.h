// A projection through a few dimensions: second(activation(first x)).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct LowRank {
  Linear first, second;
  ActivationInPlace activation = nullptr;  // Null: none.

  // x [L, inputs] => [L, outputs].
  at::Tensor operator()(const at::Tensor& x) const;
};

struct LowRankLayout {
  int64_t outputs = 0, inputs = 0, rank = 0;
  bool bias = true;  // Of the second.
  ActivationInPlace activation = nullptr;
};

// Takes "NAME.lora.0.weight", "NAME.lora.2.weight" and, with a bias, "NAME.lora.2.bias".
// Errors: those of TensorSource::Take.
absl::StatusOr<LowRank> TakeLowRank(TensorSource& source, const std::string& name,
                                    const LowRankLayout& layout);

}  // namespace ess::models
