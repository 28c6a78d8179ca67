// RWKV-7 in flash-linear-attention's layout: model_type `rwkv7`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// A decay for each key dimension and one direction moved to another; token shifts before every
// projection, layer norms, and a feed-forward of squared ReLUs.
// Source: Peng et al. 2025 (arXiv:2503.14456); flash-linear-attention's layers/rwkv7.py.
Architecture Rwkv7Architecture();

}  // namespace ess::models
