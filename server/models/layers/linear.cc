#include "server/models/layers/linear.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor Linear::operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }

void Linear::AddToInPlace(at::Tensor& residual, const at::Tensor& x) const {
  residual.addmm_(x, weight.t());
  if (bias.defined()) residual.add_(bias);
}

absl::StatusOr<Linear> TakeLinear(TensorSource& source, const std::string& name, int64_t outputs,
                                  int64_t inputs, bool bias, LinearLayout layout) {
  Linear linear;
  if (layout == LinearLayout::kOutputsByInputs) {
    ESS_ASSIGN_OR_RETURN(linear.weight, source.Take(name + ".weight", {outputs, inputs}));
  } else {
    ESS_ASSIGN_OR_RETURN(const at::Tensor stored, source.Take(name + ".weight", {inputs, outputs}));
    linear.weight = stored.t();
  }
  if (bias) {
    ESS_ASSIGN_OR_RETURN(linear.bias, source.Take(name + ".bias", {outputs}));
  }
  return linear;
}

}  // namespace ess::models
