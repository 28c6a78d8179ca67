#include "server/models/layers/rms_norm.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat);
  at::Tensor inverse_root = wide.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
  return wide.mul(inverse_root).to(x.scalar_type()).mul_(weight);
}

absl::StatusOr<RmsNorm> TakeRmsNorm(TensorSource& source, const std::string& name, int64_t width,
                                    double epsilon) {
  ESS_ASSIGN_OR_RETURN(at::Tensor weight, source.Take(name + ".weight", {width}));
  return RmsNorm{std::move(weight), epsilon};
}

}  // namespace ess::models
