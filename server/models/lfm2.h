// LFM2: short gated convolutions, with grouped-query attention in some layers.
// Source: Liquid AI 2025 (arXiv:2511.23404).
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "lfm2".
Architecture Lfm2Architecture();

}  // namespace ess::models
