// Which models go to make room: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace ess::residency {

struct EvictionCandidate {
  int64_t bytes = 0;
  uint64_t last_use = 0;  // Larger is later.
};

// The least recently used candidates that hold `missing_bytes` together, as indices, in the order
// of eviction: none when nothing is missing. Nothing when all of them hold less.
std::optional<std::vector<size_t>> ChooseEvictions(const std::vector<EvictionCandidate>& candidates,
                                                   int64_t missing_bytes);

}  // namespace ess::residency
