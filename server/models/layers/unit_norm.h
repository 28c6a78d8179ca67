// Norms without weights that delta rules put on queries and keys.
#pragma once

#include <ATen/core/Tensor.h>

namespace ess::models {

// x / sqrt(sum x^2 + 1e-6) over the last axis, in float32, back in x's dtype.
at::Tensor UnitLength(const at::Tensor& x);

// x / max(sum |x|, 1e-6) over the last axis, likewise.
at::Tensor UnitAbsoluteSum(const at::Tensor& x);

}  // namespace ess::models
