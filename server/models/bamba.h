// Bamba: Mamba-2, with attention in a few layers that the config names.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// model_type "bamba".
Architecture BambaArchitecture();

}  // namespace ess::models
