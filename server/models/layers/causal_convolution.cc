#include "server/models/layers/causal_convolution.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor CausalConvolution::operator()(const at::Tensor& x) const {
  const int64_t length = x.size(0);
  const int64_t taps = weight.size(2);
  // In float32 also where weights are stored in 16 bits: their sum is rounded once.
  const at::Tensor inputs = x.to(at::kFloat);
  const at::Tensor rows = weight.squeeze(1).t().to(at::kFloat).contiguous();  // [K, channels]
  // The last tap meets the position itself, the one before it the position before.
  at::Tensor y = inputs * rows[taps - 1];
  for (int64_t back = 1; back < std::min(taps, length); ++back) {
    y.narrow(0, back, length - back)
        .addcmul_(inputs.narrow(0, 0, length - back), rows[taps - 1 - back]);
  }
  if (bias.defined()) y.add_(bias);
  return y.to(x.scalar_type());
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
