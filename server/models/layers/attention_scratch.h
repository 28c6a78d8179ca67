// Memory that the attention of all layers and prompts of a forward pass shares.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>

namespace ess::models {

// Not thread-safe.
class AttentionScratch {
 public:
  // [L, L] of `like`'s dtype and device: 0 where row i sees column j, i - window < j <= i, else
  // -infinity. `window` 0: no window.
  const at::Tensor& CausalMask(int64_t length, int64_t window, const at::Tensor& like);

  // Uninitialised [heads, L, L] of `like`'s dtype and device, valid until the next call.
  at::Tensor Maps(int64_t heads, int64_t length, const at::Tensor& like);

 private:
  std::map<int64_t, at::Tensor> masks_;  // By window, of the last length.
  at::Tensor maps_;                      // [capacity]
};

}  // namespace ess::models
