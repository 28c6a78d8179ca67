// DeepSeek-V2: model_type `deepseek_v2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Multi-head latent attention; experts chosen by their softmax, of all or of the best groups.
// Source: Liu et al. 2024 (arXiv:2405.04434); transformers' modeling_deepseek_v2.py.
Architecture DeepseekV2Architecture();

}  // namespace ess::models
