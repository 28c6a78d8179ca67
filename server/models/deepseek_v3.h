// DeepSeek-V3 and R1: model_type `deepseek_v3`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// DeepSeek-V2's blocks; experts chosen by sigmoids with a correction that balances their load.
// Source: Liu et al. 2024 (arXiv:2412.19437); transformers' modeling_deepseek_v3.py.
Architecture DeepseekV3Architecture();

}  // namespace ess::models
