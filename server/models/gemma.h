// Gemma: model_type `gemma`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Llama's blocks with scaled embeddings and norms whose weights are stored around 0.
// Source: Gemma Team 2024 (arXiv:2403.08295); transformers' modeling_gemma.py.
Architecture GemmaArchitecture();

}  // namespace ess::models
