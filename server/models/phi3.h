// Phi-3, Phi-3.5 and Phi-4-mini: model_type `phi3`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Llama's blocks with fused projections; a sliding window, partial rotation and long rotary factors
// where the config has them.
// Source: Abdin et al. 2024 (arXiv:2404.14219); transformers' modeling_phi3.py.
Architecture Phi3Architecture();

}  // namespace ess::models
