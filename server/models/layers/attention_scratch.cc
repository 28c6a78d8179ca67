#include "server/models/layers/attention_scratch.h"

#include <ATen/ATen.h>

#include <limits>

namespace ess::models {

const at::Tensor& AttentionScratch::CausalMask(int64_t length, int64_t window,
                                               const at::Tensor& like) {
  if (!masks_.empty() && masks_.begin()->second.size(0) != length) masks_.clear();
  at::Tensor& mask = masks_[window];
  if (!mask.defined()) {
    const at::Tensor hidden =
        at::full({length, length}, -std::numeric_limits<double>::infinity(), like.options());
    mask = hidden.triu(1);
    if (window > 0 && window < length) mask.add_(hidden.tril(-window));
  }
  return mask;
}

at::Tensor AttentionScratch::Maps(int64_t heads, int64_t length, const at::Tensor& like) {
  const int64_t count = heads * length * length;
  if (!maps_.defined() || maps_.size(0) < count) {
    maps_.reset();  // Frees before it allocates.
    maps_ = at::empty({count}, like.options());
  }
  return maps_.narrow(0, 0, count).view({heads, length, length});
}

}  // namespace ess::models
