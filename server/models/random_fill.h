// Tensors of random numbers, filled by as many threads as LibTorch uses, with the same bits for any
// number of them.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/base/random_numbers.h"

namespace ess::models {

// In place; `values` is contiguous float32 on the CPU, its elements in row-major order.
void FillNormal(const RandomNumbers& random, at::Tensor& values);   // Standard normal.
void FillUniform(const RandomNumbers& random, at::Tensor& values);  // In [0, 1).

}  // namespace ess::models
