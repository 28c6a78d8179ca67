#include "server/models/layers/unit_norm.h"

#include <ATen/ATen.h>

namespace ess::models {
namespace {

constexpr double kEpsilon = 1e-6;

}  // namespace

at::Tensor UnitLength(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide.mul(wide.square().sum(-1, /*keepdim=*/true).add_(kEpsilon).rsqrt_())
      .to(x.scalar_type());
}

at::Tensor UnitAbsoluteSum(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide.div(wide.abs().sum(-1, /*keepdim=*/true).clamp_min_(kEpsilon)).to(x.scalar_type());
}

}  // namespace ess::models
