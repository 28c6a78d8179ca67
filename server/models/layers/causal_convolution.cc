#include "server/models/layers/causal_convolution.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor CausalConvolution::operator()(const at::Tensor& x) const {
  const int64_t length = x.size(0);
  const int64_t channels = weight.size(0);
  const int64_t taps = weight.size(2);
  // [L, channels] => [1, channels, L + taps - 1] => [L, channels]
  return at::conv1d(x.t().unsqueeze(0), weight, bias, /*stride=*/1, /*padding=*/taps - 1,
                    /*dilation=*/1, /*groups=*/channels)
      .squeeze(0)
      .narrow(1, 0, length)
      .t();
}

absl::StatusOr<CausalConvolution> TakeCausalConvolution(TensorSource& source,
                                                        const std::string& name, int64_t channels,
                                                        int64_t taps, bool bias) {
  CausalConvolution convolution;
  ESS_ASSIGN_OR_RETURN(convolution.weight, source.Take(name + ".weight", {channels, 1, taps}));
  if (bias) {
    ESS_ASSIGN_OR_RETURN(convolution.bias, source.Take(name + ".bias", {channels}));
  }
  return convolution;
}

}  // namespace ess::models
