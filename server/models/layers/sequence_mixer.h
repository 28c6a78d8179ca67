// What a layer does along the sequence, for stacks whose layers differ in it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/forward_pass.h"
#include "server/models/layers/rotary.h"
#include "server/models/sequence_model.h"

namespace ess::models {

// Immutable.
class SequenceMixer {
 public:
  virtual ~SequenceMixer() = default;

  // The operators that it hands over; name and layer index are the stack's to fill in.
  virtual Mixer Describe() const = 0;

  // x [L, D] => [L, D]; undefined when the pass ends after this mixer. Hands its operators to
  // `pass`. `rotary` is empty where the model rotates nothing.
  // Errors: those of the sink; kCancelled, kDeadlineExceeded.
  virtual absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary,
                                         int64_t mixer, ForwardPass& pass) const = 0;
};

}  // namespace ess::models
