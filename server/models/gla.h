// GLA in flash-linear-attention's layout: model_type `gla`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Linear attention with a decay for each key dimension, made from the input.
// Source: Yang et al. 2023 (arXiv:2312.06635); flash-linear-attention's layers/gla.py.
Architecture GlaArchitecture();

}  // namespace ess::models
