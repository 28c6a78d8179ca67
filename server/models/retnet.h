// RetNet in flash-linear-attention's layout: model_type `retnet`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Linear attention with rotary positions and a fixed decay for each head.
// Source: Sun et al. 2023 (arXiv:2307.08621); flash-linear-attention's
// layers/multiscale_retention.py.
Architecture RetnetArchitecture();

}  // namespace ess::models
