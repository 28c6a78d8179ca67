#include "server/models/layers/low_rank.h"

#include <ATen/ATen.h>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor LowRank::operator()(const at::Tensor& x) const {
  at::Tensor inner = first(x);
  if (activation != nullptr) activation(inner);
  return second(inner);
}

absl::StatusOr<LowRank> TakeLowRank(TensorSource& source, const std::string& name,
                                    const LowRankLayout& layout) {
  LowRank taken{.first = {}, .second = {}, .activation = layout.activation};
  ESS_ASSIGN_OR_RETURN(taken.first, TakeLinear(source, name + ".lora.0", layout.rank, layout.inputs,
                                               /*bias=*/false));
  ESS_ASSIGN_OR_RETURN(
      taken.second, TakeLinear(source, name + ".lora.2", layout.outputs, layout.rank, layout.bias));
  return taken;
}

}  // namespace ess::models
