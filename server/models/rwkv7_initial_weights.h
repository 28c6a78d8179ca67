// How RWKV-7's weights start: values that depend on the layer and the channel.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/initial_weights.h"
#include "server/models/rwkv_decoder.h"

namespace ess::models {

// `sizes`, `head_dim`: what the model reads from the same config. Errors: those of ConfigReader.
absl::StatusOr<InitialWeights> Rwkv7InitialWeights(const ConfigReader& config,
                                                   const RwkvSizes& sizes, int64_t head_dim);

}  // namespace ess::models
