// Index selections of a request, resolved against what exists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ess {

// first, first + stride, ... up to and including last.
struct IndexRange {
  int64_t first = 0;
  int64_t last = 0;
  int64_t stride = 1;
};

// Empty ranges: everything.
struct IndexSelection {
  std::vector<IndexRange> ranges;
};

// More ranges than any list of positions needs: what a request can cost has a bound.
inline constexpr size_t kMaxRanges = 16384;

// Errors: kInvalidArgument  a negative index, last < first, stride < 1, more than kMaxRanges: names
//         `field` and the range.
absl::Status ValidateSelection(const IndexSelection& selection, const std::string& field);

// The selected indices in [0, count), ascending, each once. Those that do not exist are left out.
// REQUIRES: ValidateSelection is OK.
// Cost: O(count * ranges) at worst, whatever numbers the ranges hold.
std::vector<int64_t> SelectedIndices(const IndexSelection& selection, int64_t count);

// An error unless every index of every range lies in [0, count).
// Errors: kInvalidArgument  names `field`, the index and the limit; `what` is the plural noun.
absl::Status CheckExists(const IndexSelection& selection, int64_t count, const std::string& field,
                         const std::string& what);

}  // namespace ess
