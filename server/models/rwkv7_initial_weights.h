// How RWKV-7's weights start: values that depend on the layer and the channel.
#pragma once

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/initial_weights.h"

namespace ess::models {

// Errors: those of ConfigReader.
absl::StatusOr<InitialWeights> Rwkv7InitialWeights(const ConfigReader& config);

}  // namespace ess::models
