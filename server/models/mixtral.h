// Mixtral: model_type `mixtral`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Mistral's blocks with a mixture of experts for a feed-forward.
// Source: Jiang et al. 2024 (arXiv:2401.04088); transformers' modeling_mixtral.py.
Architecture MixtralArchitecture();

}  // namespace ess::models
