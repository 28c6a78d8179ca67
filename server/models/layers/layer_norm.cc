#include "server/models/layers/layer_norm.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, epsilon);
}

absl::StatusOr<LayerNorm> TakeLayerNorm(TensorSource& source, const std::string& name,
                                        int64_t width, double epsilon) {
  ESS_ASSIGN_OR_RETURN(at::Tensor weight, source.Take(name + ".weight", {width}));
  ESS_ASSIGN_OR_RETURN(at::Tensor bias, source.Take(name + ".bias", {width}));
  return LayerNorm{std::move(weight), std::move(bias), epsilon};
}

}  // namespace ess::models
