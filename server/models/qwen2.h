// Qwen2 and Qwen2.5: model_type `qwen2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Llama's blocks with biases of queries, keys and values; sliding windows in the later layers,
// where the config switches them on. Source: Yang et al. 2024 (arXiv:2407.10671); transformers'
// modeling_qwen2.py.
Architecture Qwen2Architecture();

}  // namespace ess::models
