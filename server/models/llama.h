// Llama 1, 2, 3.x and everything in their format (SmolLM2): model_type `llama`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Pre-norm blocks of grouped-query attention with rotary positions and a gated feed-forward.
// Source: Touvron et al. 2023 (arXiv:2302.13971); transformers' modeling_llama.py.
Architecture LlamaArchitecture();

}  // namespace ess::models
