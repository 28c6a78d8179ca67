// The sliding windows of the Qwen family.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"

namespace ess::models {

// By layer, 0 for full attention. `sliding_window` counts only with `use_sliding_window`; it holds
// in the layers from `max_window_layers` on, or where `layer_types` says so. Errors: those of
// ConfigReader.
absl::StatusOr<std::vector<int64_t>> ReadQwenWindows(const ConfigReader& config,
                                                     int64_t layer_count);

}  // namespace ess::models
