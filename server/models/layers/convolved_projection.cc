#include "server/models/layers/convolved_projection.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor ConvolvedProjection::Heads(const at::Tensor& x, int64_t head_dim) const {
  at::Tensor projected = projection(x);
  if (convolution.has_value()) projected = (*convolution)(projected);
  if (activation != nullptr) activation(projected);
  return projected.reshape({x.size(0), -1, head_dim});
}

at::Tensor ConvolvedProjection::Features(const at::Tensor& x, int64_t head_dim) const {
  return Heads(x.to(at::kFloat), head_dim);
}

absl::StatusOr<ConvolvedProjection> TakeConvolvedProjection(TensorSource& source,
                                                            const std::string& name,
                                                            int64_t outputs, int64_t inputs,
                                                            int64_t taps,
                                                            ActivationInPlace activation) {
  ConvolvedProjection taken{.projection = {}, .convolution = {}, .activation = activation};
  ESS_ASSIGN_OR_RETURN(taken.projection,
                       TakeLinear(source, name + "_proj", outputs, inputs, /*bias=*/false));
  if (taps > 0) {
    ESS_ASSIGN_OR_RETURN(taken.convolution, TakeCausalConvolution(source, name + "_conv1d", outputs,
                                                                  taps, /*bias=*/false));
  }
  return taken;
}

}  // namespace ess::models
