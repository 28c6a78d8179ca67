// A short causal convolution of each channel with its own filter, as before a selective scan.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// y_t = bias + sum over k of weight[k] x_{t - (K - 1) + k}, with zeros before the start.
struct CausalConvolution {
  at::Tensor weight;  // [channels, 1, K]
  at::Tensor bias;    // [channels], or undefined.

  // x [L, channels] => [L, channels], in the dtype of x.
  at::Tensor operator()(const at::Tensor& x) const;
};

// Takes "NAME.weight" and, with `bias`, "NAME.bias". Errors: those of TensorSource::Take.
absl::StatusOr<CausalConvolution> TakeCausalConvolution(TensorSource& source,
                                                        const std::string& name, int64_t channels,
                                                        int64_t taps, bool bias);

}  // namespace ess::models
