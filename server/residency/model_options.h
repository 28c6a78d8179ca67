// What a model is loaded from, and how.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace ess::residency {

// How a model is loaded. Two loads with equal options give the same model.
struct ModelOptions {
  std::optional<uint64_t> random_init_seed;
  bool as_stored = false;
  std::string device;   // Empty: the server's device.
  bool pinned = false;  // Never evicted.

  friend bool operator==(const ModelOptions&, const ModelOptions&) = default;
};

struct CatalogueEntry {
  std::string name;
  std::filesystem::path folder;
  ModelOptions options;
};

}  // namespace ess::residency
