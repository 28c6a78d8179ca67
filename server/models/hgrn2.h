// HGRN2 in flash-linear-attention's layout: model_type `hgrn2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Linear attention whose keys are what its decays leave: k = 1 - a, with lower bounds of the decays
// that rise from layer to layer.
// Source: Qin et al. 2024 (arXiv:2404.07904); flash-linear-attention's layers/hgrn2.py.
Architecture Hgrn2Architecture();

}  // namespace ess::models
