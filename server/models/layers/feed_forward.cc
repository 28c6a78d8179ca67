#include "server/models/layers/feed_forward.h"

#include <ATen/ATen.h>

#include <vector>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor GatedFeedForward::Inner(const at::Tensor& x) const {
  at::Tensor gated = gate(x);
  activation(gated);
  return gated.mul_(up(x));
}

at::Tensor GatedFeedForward::operator()(const at::Tensor& x) const { return down(Inner(x)); }

absl::StatusOr<GatedFeedForward> TakeGatedFeedForward(TensorSource& source,
                                                      const std::string& module,
                                                      const GatedFeedForwardConfig& config) {
  const auto take = [&](std::string_view name, int64_t outputs, int64_t inputs) {
    return TakeLinear(source, module + std::string(name), outputs, inputs, config.bias);
  };
  GatedFeedForward layer{.activation = config.activation};
  if (config.fused) {
    ESS_ASSIGN_OR_RETURN(const std::vector<Linear> parts,
                         TakeFusedLinear(source, module + "gate_up_proj",
                                         {config.inner, config.inner}, config.width, config.bias));
    layer.gate = parts[0];
    layer.up = parts[1];
  } else {
    ESS_ASSIGN_OR_RETURN(layer.gate, take(config.gate, config.inner, config.width));
    ESS_ASSIGN_OR_RETURN(layer.up, take(config.up, config.inner, config.width));
  }
  ESS_ASSIGN_OR_RETURN(layer.down, take(config.down, config.width, config.inner));
  return layer;
}

}  // namespace ess::models
