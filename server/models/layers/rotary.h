// Rotary position embedding: cos and sin of a prompt, and their application to queries and keys.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "server/models/layers/rotary_scaling.h"

namespace ess::models {

// Angles of every position of a prompt, in float32 for weights of any dtype.
struct RotaryTable {
  at::Tensor cos;  // [L, 1, pairs]
  at::Tensor sin;  // [L, 1, pairs]
};

RotaryTable MakeRotaryTable(const RotaryScaling& scaling, int64_t length, const at::Device& device);

// Rotates pairs (m, m + pairs) of the first 2 pairs dimensions, as many as the table has; the rest
// passes through. x [L, H, head_dim] float32 => contiguous [H, L, head_dim].
at::Tensor RotateHeads(const at::Tensor& x, const RotaryTable& table);

}  // namespace ess::models
