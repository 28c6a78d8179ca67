// Qwen3-Next: Gated DeltaNet, with gated attention in every fourth layer, and many small experts.
// Qwen3.5's text models mix alike.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "qwen3_next".
Architecture Qwen3NextArchitecture();

// model_type "qwen3_5_text": dense, and its projections sort their rows by kind.
Architecture Qwen35TextArchitecture();

}  // namespace ess::models
