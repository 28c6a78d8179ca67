// A fingerprint of a checkpoint's weights.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace ess::checkpoint {

// SHA-256, in lower-case hex, over the .safetensors files of a folder: for each, in the order of
// the names, the name, a zero byte, and the contents.
// Errors: kDataLoss  a file cannot be read.
// Cost: reads the weights once, about 1 GB/s on a core with SHA instructions.
absl::StatusOr<std::string> WeightDigest(const std::filesystem::path& folder);

}  // namespace ess::checkpoint
