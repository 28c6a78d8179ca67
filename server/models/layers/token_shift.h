// RWKV's token shift: a projection sees a mixture of its position and the one before it.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/models/layers/linear.h"

namespace ess::models {

// x_{t-1} - x_t, with zeros before the start: [L, D] => [L, D].
at::Tensor TokenShift(const at::Tensor& x);

// projection(x + mu * delta), where delta is TokenShift(x).
struct ShiftedLinear {
  Linear projection;
  at::Tensor mu;  // [D]

  at::Tensor operator()(const at::Tensor& x, const at::Tensor& delta) const;
};

}  // namespace ess::models
