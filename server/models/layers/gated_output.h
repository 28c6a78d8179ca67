// How a linear-attention layer ends: an RMS norm of each head, a gate made from the layer's input,
// and the projection back.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct GatedOutput {
  at::Tensor norm_weight;  // [d], or undefined: 1.
  double norm_epsilon = 0;
  Linear gate;                             // [H d, D]; without a weight: none.
  ActivationInPlace activation = nullptr;  // Of the gate.
  Linear output;                           // [D, H d]

  // output(norm(y) * activation(gate x)): y [L, H, d] float32, x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& y, const at::Tensor& x) const;
};

// What a checkpoint has of it.
struct GatedOutputLayout {
  int64_t head_count = 0, head_dim = 0, hidden_size = 0;
  std::string norm;  // "g_norm", "o_norm"
  bool norm_weight = true;
  double norm_epsilon = 0;
  bool gate = true;
  ActivationInPlace activation = nullptr;
};

// Takes "PREFIX{norm}.weight", "PREFIXg_proj.weight" and "PREFIXo_proj.weight".
// Errors: those of TensorSource::Take.
absl::StatusOr<GatedOutput> TakeGatedOutput(TensorSource& source, const std::string& prefix,
                                            const GatedOutputLayout& layout);

}  // namespace ess::models
