// Gemma 2: model_type `gemma2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Four norms in a block, soft caps, and a sliding window in every other layer, from the first on.
// Source: Gemma Team 2024 (arXiv:2408.00118); transformers' modeling_gemma2.py.
Architecture Gemma2Architecture();

}  // namespace ess::models
