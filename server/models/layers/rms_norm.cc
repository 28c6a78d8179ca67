#include "server/models/layers/rms_norm.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat);
  at::Tensor inverse_root = wide.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
  at::Tensor normal = wide.mul(inverse_root);
  if (kind == RmsNormKind::kGemma) return normal.mul_(weight).to(x.scalar_type());
  return normal.to(x.scalar_type()).mul_(weight);
}

absl::StatusOr<RmsNorm> TakeRmsNorm(TensorSource& source, const std::string& name, int64_t width,
                                    double epsilon, RmsNormKind kind) {
  ESS_ASSIGN_OR_RETURN(at::Tensor weight, source.Take(name + ".weight", {width}));
  if (kind == RmsNormKind::kGemma) weight = weight.to(at::kFloat).add(1);
  return RmsNorm{std::move(weight), epsilon, kind};
}

}  // namespace ess::models
