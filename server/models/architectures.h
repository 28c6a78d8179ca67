// The table of architectures.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "server/models/architecture.h"

namespace ess::models {

// By model_type, in alphabetical order.
std::span<const Architecture> Architectures();

// Null when there is none of this model_type.
const Architecture* FindArchitecture(std::string_view model_type);

}  // namespace ess::models
