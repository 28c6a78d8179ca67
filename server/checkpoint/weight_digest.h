// A fingerprint of a model's weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace ess::checkpoint {

// SHA-256, in lower-case hex, over the .safetensors files of a folder: for each, in the order of
// the names, the name, a zero byte, and the contents.
// Errors: kDataLoss  a file cannot be read.
// Cost: reads the weights once, about 1 GB/s on a core with SHA instructions.
absl::StatusOr<std::string> WeightDigest(const std::filesystem::path& folder);

// Raised by every change of what is drawn from a config and a seed (server/models).
inline constexpr int kInitialWeightsVersion = 2;

// The same for weights that are drawn: over the name and the contents of the config, and the seed
// and kInitialWeightsVersion in decimal digits with a space between. Errors: as above.
absl::StatusOr<std::string> InitialWeightDigest(const std::filesystem::path& config, uint64_t seed);

}  // namespace ess::checkpoint
