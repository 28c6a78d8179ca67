// A projection, then a short causal convolution along the sequence where there is one, then an
// activation: how linear-attention layers make queries, keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct ConvolvedProjection {
  Linear projection;
  std::optional<CausalConvolution> convolution;
  ActivationInPlace activation = nullptr;  // Null: none.

  // x [L, D] => [L, outputs / head_dim, head_dim].
  at::Tensor Heads(const at::Tensor& x, int64_t head_dim) const;
  // The same for what forms an operator: all of it in float32.
  at::Tensor Features(const at::Tensor& x, int64_t head_dim) const;
};

// Takes "NAME_proj.weight" and, where `taps` is not 0, "NAME_conv1d.weight".
// Errors: those of TensorSource::Take.
absl::StatusOr<ConvolvedProjection> TakeConvolvedProjection(TensorSource& source,
                                                            const std::string& name,
                                                            int64_t outputs, int64_t inputs,
                                                            int64_t taps,
                                                            ActivationInPlace activation);

}  // namespace ess::models
