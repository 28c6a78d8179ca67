// Linear attention in flash-linear-attention's layout: model_type `linear_attn`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Attention without softmax: feature maps of queries and keys, and a state that only grows.
// Source: Katharopoulos et al. 2020 (arXiv:2006.16236); flash-linear-attention's
// layers/linear_attn.py.
Architecture LinearAttnArchitecture();

}  // namespace ess::models
