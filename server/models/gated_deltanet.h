// Gated DeltaNet in flash-linear-attention's layout: model_type `gated_deltanet`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// The delta rule with a decay of the whole state, made from the input.
// Source: Yang et al. 2024 (arXiv:2412.06464); flash-linear-attention's layers/gated_deltanet.py.
Architecture GatedDeltanetArchitecture();

}  // namespace ess::models
