// Attention with linear biases: each head prefers near keys by a slope of its own.
// Source: Press et al. 2021 (arXiv:2108.12409).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ess::models {

// slope_h * j for head h and key j, [H, L] in `like`'s dtype and device. The slopes are powers of
// 2^(-8/P), P the largest power of two up to the number of heads; heads beyond it take every other
// one of the sequence for 2 P. The products are rounded to bfloat16, as transformers' Falcon does.
at::Tensor AlibiBias(int64_t head_count, int64_t length, const at::Tensor& like);

}  // namespace ess::models
