// DeltaNet in flash-linear-attention's layout: model_type `delta_net`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Linear attention that overwrites what its state holds at a key.
// Source: Yang et al. 2024 (arXiv:2406.06484); flash-linear-attention's layers/delta_net.py.
Architecture DeltaNetArchitecture();

}  // namespace ess::models
