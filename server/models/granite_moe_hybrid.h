// Granite 4: Mamba-2 or attention, then experts beside a feed-forward of every token.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "granitemoehybrid".
Architecture GraniteMoeHybridArchitecture();

}  // namespace ess::models
