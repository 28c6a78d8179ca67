#include "server/models/layers/layer_norm.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  const auto like_x = [&](const at::Tensor& of) {
    return of.defined() ? of.to(x.scalar_type()) : of;
  };
  return at::layer_norm(x, weight.sizes(), like_x(weight), like_x(bias), epsilon);
}

at::Tensor LayerNorm::Heads(const at::Tensor& y) const {
  const auto wide = [](const at::Tensor& x) { return x.defined() ? x.to(at::kFloat) : x; };
  return at::group_norm(wide(y).reshape({y.size(0), -1}), y.size(1), wide(weight), wide(bias),
                        epsilon, /*cudnn_enabled=*/false);
}

absl::StatusOr<LayerNorm> TakeLayerNorm(TensorSource& source, const std::string& name,
                                        int64_t width, double epsilon, bool bias) {
  LayerNorm norm{.weight = {}, .bias = {}, .epsilon = epsilon};
  ESS_ASSIGN_OR_RETURN(norm.weight, source.Take(name + ".weight", {width}));
  if (bias) {
    ESS_ASSIGN_OR_RETURN(norm.bias, source.Take(name + ".bias", {width}));
  }
  return norm;
}

}  // namespace ess::models
