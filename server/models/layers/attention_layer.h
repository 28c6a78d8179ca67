// What the layers of a gated decoder differ in: how hidden states become queries, keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"
#include "server/models/layers/rotary.h"

namespace ess::models {

// Immutable.
class AttentionLayer {
 public:
  virtual ~AttentionLayer() = default;

  // x [L, D] => [L, H dv], heads in order, what the output projection takes; undefined when the
  // pass ends after this mixer. Hands its operators to `pass`. Errors: those of the sink;
  // kCancelled, kDeadlineExceeded.
  virtual absl::StatusOr<at::Tensor> Attend(const at::Tensor& x, const RotaryTable& rotary,
                                            int64_t mixer, ForwardPass& pass) const = 0;
};

}  // namespace ess::models
