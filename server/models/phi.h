// Phi-1, Phi-1.5 and Phi-2: model_type `phi`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// One layer norm before attention and feed-forward side by side, rotary positions on half of each
// head, biases everywhere.
// Source: Li et al. 2023 (arXiv:2309.05463); transformers' modeling_phi.py.
Architecture PhiArchitecture();

}  // namespace ess::models
