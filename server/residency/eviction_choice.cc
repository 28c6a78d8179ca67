#include "server/residency/eviction_choice.h"

#include <algorithm>
#include <numeric>

namespace ess::residency {

std::optional<std::vector<size_t>> ChooseEvictions(const std::vector<EvictionCandidate>& candidates,
                                                   int64_t missing_bytes) {
  std::vector<size_t> by_use(candidates.size());
  std::iota(by_use.begin(), by_use.end(), size_t{0});
  std::stable_sort(by_use.begin(), by_use.end(), [&candidates](size_t a, size_t b) {
    return candidates[a].last_use < candidates[b].last_use;
  });
  std::vector<size_t> chosen;
  for (const size_t index : by_use) {
    if (missing_bytes <= 0) break;
    chosen.push_back(index);
    missing_bytes -= candidates[index].bytes;
  }
  if (missing_bytes > 0) return std::nullopt;
  return chosen;
}

}  // namespace ess::residency
