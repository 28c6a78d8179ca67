// Qwen3, dense: model_type `qwen3`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Llama's blocks with an RMS norm of each query and key head, and a head_dim of its own.
// Source: Yang et al. 2025 (arXiv:2505.09388); transformers' modeling_qwen3.py.
Architecture Qwen3Architecture();

}  // namespace ess::models
