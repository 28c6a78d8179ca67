// The gated feed-forward: down(activation(gate x) * up x).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Immutable after loading.
struct GatedFeedForward {
  Linear gate, up;  // [I, D]
  Linear down;      // [D, I]
  ActivationInPlace activation = nullptr;

  // x [L, D] => [L, I], what `down` takes.
  at::Tensor Inner(const at::Tensor& x) const;

  // x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& x) const;
};

struct GatedFeedForwardConfig {
  int64_t width = 0;  // D
  int64_t inner = 0;  // I
  bool bias = false;
  ActivationInPlace activation = nullptr;
  bool fused = false;  // gate_up_proj in the checkpoint, gate's rows first.
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};

// Takes "MODULEgate_proj", "MODULEup_proj", "MODULEdown_proj". Errors: those of TensorSource::Take.
absl::StatusOr<GatedFeedForward> TakeGatedFeedForward(TensorSource& source,
                                                      const std::string& module,
                                                      const GatedFeedForwardConfig& config);

}  // namespace ess::models
