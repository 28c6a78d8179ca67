// Reads a JSON file as Python wrote it.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ess {

// Far above any config.json or index of shards.
inline constexpr size_t kMaxJsonBytes = 64 << 20;

// The bare words NaN, Infinity and -Infinity, which Python writes and JSON forbids, become strings.
// `display_name` stands in messages instead of the path.
// Errors: kDataLoss  the file cannot be read, is over `max_bytes`, is not JSON, has a key twice or
//         is nested deeper than 64 levels.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::filesystem::path& path,
                                            const std::string& display_name,
                                            size_t max_bytes = kMaxJsonBytes);

// The same for text in memory.
absl::StatusOr<nlohmann::json> ParseJson(const std::string& text, const std::string& display_name);

// The whole file. Errors: kDataLoss.
absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path,
                                         const std::string& display_name, size_t max_bytes);

}  // namespace ess
