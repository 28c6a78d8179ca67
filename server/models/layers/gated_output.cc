#include "server/models/layers/gated_output.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"
#include "server/models/layers/rms_norm.h"

namespace ess::models {

at::Tensor GatedOutput::operator()(const at::Tensor& y, const at::Tensor& x) const {
  at::Tensor normal = WeightlessRmsNorm(y, norm_epsilon);  // [L, H, d]
  if (norm_weight.defined()) normal.mul_(norm_weight);
  normal = normal.view({y.size(0), -1});
  if (gate.weight.defined()) {
    at::Tensor gates = gate(x).to(at::kFloat);
    activation(gates);
    normal.mul_(gates);
  }
  return output(normal.to(x.scalar_type()));
}

absl::StatusOr<GatedOutput> TakeGatedOutput(TensorSource& source, const std::string& prefix,
                                            const GatedOutputLayout& layout) {
  const int64_t width = layout.head_count * layout.head_dim;
  GatedOutput taken;
  taken.norm_epsilon = layout.norm_epsilon;
  taken.activation = layout.activation;
  if (layout.norm_weight) {
    ESS_ASSIGN_OR_RETURN(taken.norm_weight,
                         source.Take(prefix + layout.norm + ".weight", {layout.head_dim}));
  }
  if (layout.gate) {
    ESS_ASSIGN_OR_RETURN(taken.gate, TakeLinear(source, prefix + "g_proj", width,
                                                layout.hidden_size, /*bias=*/false));
  }
  ESS_ASSIGN_OR_RETURN(taken.output, TakeLinear(source, prefix + "o_proj", layout.hidden_size,
                                                width, /*bias=*/false));
  return taken;
}

}  // namespace ess::models
