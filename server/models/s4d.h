// S4D in the layout of docs/s4d.md: model_type `s4d`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Diagonal state spaces that do not depend on the input, one for each channel.
// Source: Gu et al. 2022 (arXiv:2206.11893).
Architecture S4dArchitecture();

}  // namespace ess::models
