// Whether somebody touches weights while they are read.
#pragma once

#include <filesystem>
#include <string>

namespace ess::checkpoint {

// Names, inodes, sizes and times of the .safetensors files of a folder: two equal stamps, and the
// files were neither replaced nor written to in between. Empty when there are none.
std::string WeightStamp(const std::filesystem::path& folder);

}  // namespace ess::checkpoint
