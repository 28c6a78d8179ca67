// Gemma 3, text: model_type `gemma3_text`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Gemma 2's blocks with an RMS norm of each query and key head, a sliding window in five layers of
// six, and rotary positions of another base there.
// Source: Gemma Team 2025 (arXiv:2503.19786); transformers' modeling_gemma3.py.
Architecture Gemma3Architecture();

}  // namespace ess::models
