// What an architecture implements: the embedding, the layers and the output head of one prompt.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/models/forward_pass.h"
#include "server/models/layers/rotary.h"

namespace ess::models {

// One prompt between two layers.
struct PromptState {
  at::Tensor hidden;          // [L, D]
  RotaryTable rotary;         // Empty where the architecture rotates nothing.
  RotaryTable window_rotary;  // Of layers with a sliding window, where the architecture has them.
  at::Tensor first_values;    // Of the first layer, where later layers mix them in (RWKV-7).
  at::Tensor mixed;           // What mixers of this layer made of it so far: [L, D].
};

// Immutable. Methods see one prompt at a time, so its arithmetic cannot depend on the batch. They
// may throw LibTorch's exceptions; DecoderModel catches them.
class Decoder {
 public:
  virtual ~Decoder() = default;

  // Of the tokens: [V, D].
  virtual const at::Tensor& embedding() const = 0;

  // embeddings: rows of embedding(), or what stands in for them, [L, D] of its dtype and device.
  // Scales them and adds positions, as the architecture does; may change them in place.
  virtual PromptState Begin(const at::Tensor& embeddings) const = 0;

  // Updates state.hidden and hands the layer's operators to `pass`. Leaves state.hidden as it is
  // when the pass ends after one of its mixers. A layer that mixes more than once is run once for
  // each of its mixers, pass.mixer(), for all prompts before the next one.
  // Errors: those of the sink; kCancelled, kDeadlineExceeded.
  virtual absl::Status RunLayer(int64_t layer_index, PromptState& state,
                                ForwardPass& pass) const = 0;

  // hidden [L, D] => [L, V].
  virtual at::Tensor Logits(const at::Tensor& hidden) const = 0;
};

}  // namespace ess::models
