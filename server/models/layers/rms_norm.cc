#include "server/models/layers/rms_norm.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/base/status_macros.h"

namespace ess::models {

namespace {

// In float32.
at::Tensor Normalized(const at::Tensor& x, double epsilon) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide.mul(wide.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_());
}

}  // namespace

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  at::Tensor normal = Normalized(x, epsilon);
  if (kind == RmsNormKind::kGemma) return normal.mul_(weight).to(x.scalar_type());
  return normal.to(x.scalar_type()).mul_(weight);
}

at::Tensor WeightlessRmsNorm(const at::Tensor& x, double epsilon) {
  return Normalized(x, epsilon).to(x.scalar_type());
}

absl::StatusOr<RmsNorm> TakeRmsNorm(TensorSource& source, const std::string& name, int64_t width,
                                    double epsilon, RmsNormKind kind) {
  ESS_ASSIGN_OR_RETURN(at::Tensor weight, source.Take(name + ".weight", {width}));
  if (kind == RmsNormKind::kGemma) weight = weight.to(at::kFloat).add(1);
  return RmsNorm{std::move(weight), epsilon, kind};
}

}  // namespace ess::models
