// RWKV-6 in flash-linear-attention's layout: model_type `rwkv6`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// A decay for each key dimension, read before the position's own key enters the state; mixtures
// with the position before that depend on the input; layer norms.
// Source: Peng et al. 2024 (arXiv:2404.05892); flash-linear-attention's layers/rwkv6.py.
Architecture Rwkv6Architecture();

}  // namespace ess::models
