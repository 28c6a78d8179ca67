// Memory that the attention of all layers and prompts of a forward pass shares.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ess::models {

// Not thread-safe.
class AttentionScratch {
 public:
  // [L, L] of `like`'s dtype and device: 0 on and below the diagonal, -infinity above.
  const at::Tensor& CausalMask(int64_t length, const at::Tensor& like);

  // Uninitialised [heads, L, L] of `like`'s dtype and device, valid until the next call.
  at::Tensor Maps(int64_t heads, int64_t length, const at::Tensor& like);

 private:
  at::Tensor mask_;
  at::Tensor maps_;  // [capacity]
};

}  // namespace ess::models
