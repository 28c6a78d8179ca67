// Falcon-H1: attention and Mamba-2 side by side in every layer, so two operators for each.
// Source: Zuo et al. 2025 (arXiv:2507.22448).
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "falcon_h1".
Architecture FalconH1Architecture();

}  // namespace ess::models
