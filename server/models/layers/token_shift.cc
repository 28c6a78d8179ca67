#include "server/models/layers/token_shift.h"

#include <ATen/ATen.h>

namespace ess::models {

at::Tensor TokenShift(const at::Tensor& x) {
  at::Tensor delta = x.neg();
  delta.slice(0, 1).add_(x.slice(0, 0, x.size(0) - 1));
  return delta;
}

at::Tensor ShiftedLinear::operator()(const at::Tensor& x, const at::Tensor& delta) const {
  return projection(x.addcmul(delta, mu));
}

}  // namespace ess::models
