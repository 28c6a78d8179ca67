// Jamba: Mamba with attention in every eighth layer, and experts in every second one.
// Source: Lieber et al. 2024 (arXiv:2403.19887).
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "jamba".
Architecture JambaArchitecture();

}  // namespace ess::models
