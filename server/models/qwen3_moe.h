// Qwen3 with mixtures of experts: model_type `qwen3_moe`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Qwen3's blocks with a mixture of experts for a feed-forward in some or all layers.
// Source: Yang et al. 2025 (arXiv:2505.09388); transformers' modeling_qwen3_moe.py.
Architecture Qwen3MoeArchitecture();

}  // namespace ess::models
