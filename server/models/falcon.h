// Falcon 7B, 40B, 180B, RW and 11B: model_type `falcon`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Three layouts of a fused projection, attention and feed-forward side by side or in sequence,
// rotary positions or ALiBi. Source: Almazrouei et al. 2023 (arXiv:2311.16867); transformers'
// modeling_falcon.py.
Architecture FalconArchitecture();

}  // namespace ess::models
