#include "server/pipeline/selection.h"

#include <algorithm>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess {
namespace {

// The largest index that the range really contains.
int64_t LargestIndex(const IndexRange& range) {
  return range.last - (range.last - range.first) % range.stride;
}

}  // namespace

absl::Status ValidateSelection(const IndexSelection& selection, const std::string& field) {
  if (selection.ranges.size() > kMaxRanges) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} ranges; the limit is {}", field, selection.ranges.size(), kMaxRanges));
  }
  for (const IndexRange& range : selection.ranges) {
    if (range.first < 0 || range.last < range.first || range.stride < 1) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the range first={} last={} stride={} is not one; 0 <= first <= last and "
                      "stride >= 1",
                      field, range.first, range.last, range.stride));
    }
  }
  return absl::OkStatus();
}

std::vector<int64_t> SelectedIndices(const IndexSelection& selection, int64_t count) {
  std::vector<char> wanted(static_cast<size_t>(count), selection.ranges.empty());
  for (const IndexRange& range : selection.ranges) {
    const int64_t end = std::min(range.last, count - 1);
    for (int64_t i = range.first; i <= end; i += range.stride) {
      wanted[i] = 1;
      if (range.stride > end - i) break;  // The sum could overflow.
    }
  }
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) {
    if (wanted[i]) indices.push_back(i);
  }
  return indices;
}

absl::Status CheckExists(const IndexSelection& selection, int64_t count, const std::string& field,
                         const std::string& what) {
  for (const IndexRange& range : selection.ranges) {
    const int64_t largest = LargestIndex(range);
    if (largest >= count) {
      return absl::InvalidArgumentError(
          fmt::format("{}: index {} does not exist; there are {} {}, 0 to {}", field, largest,
                      count, what, count - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace ess
