// Mamba and Falcon-Mamba: model_types `mamba` and `falcon_mamba`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// A gated selective scan (S6) in each layer: one small recurrence per channel.
// Source: Gu and Dao 2023 (arXiv:2312.00752); transformers' modeling_mamba.py.
Architecture MambaArchitecture();

// The same with weightless RMS norms of delta, B and C.
// Source: Zuo et al. 2024 (arXiv:2410.05355); transformers' modeling_falcon_mamba.py.
Architecture FalconMambaArchitecture();

}  // namespace ess::models
