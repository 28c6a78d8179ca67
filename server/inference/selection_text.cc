#include "server/inference/selection_text.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess::inference {
namespace {

constexpr size_t kMostShown = 64;  // Of a text, in messages.

bool AllDigits(std::string_view text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

bool ParseIndex(std::string_view text, int64_t& value) {
  const char* const end = text.data() + text.size();
  return AllDigits(text) && std::from_chars(text.data(), end, value).ec == std::errc();
}

absl::StatusOr<IndexRange> ParseRange(std::string_view part, const std::string& field) {
  IndexRange range;
  const size_t dash = part.find('-');
  const size_t colon = part.find(':');
  bool good = ParseIndex(part.substr(0, dash), range.first);
  range.last = range.first;
  if (good && dash != part.npos) {
    good = ParseIndex(part.substr(dash + 1, colon == part.npos ? colon : colon - dash - 1),
                      range.last);
    if (good && colon != part.npos) good = ParseIndex(part.substr(colon + 1), range.stride);
  }
  if (!good) {
    return absl::InvalidArgumentError(fmt::format("{}: '{}' is not like 5, 4-7 or 0-511:8", field,
                                                  CutText(std::string(part), kMostShown)));
  }
  return range;
}

bool IsLayerName(std::string_view part) {
  const size_t dot = part.find('.');
  const std::string_view index = part.substr(0, dot);
  return index.size() >= 3 && AllDigits(index);
}

}  // namespace

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> parts;
  while (true) {
    const size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    parts.emplace_back(part);
    if (comma == text.npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

absl::StatusOr<IndexSelection> ParseIndices(std::string_view text, const std::string& field) {
  IndexSelection selection;
  for (const std::string& part : SplitList(text)) {
    ESS_ASSIGN_OR_RETURN(const IndexRange range, ParseRange(part, field));
    selection.ranges.push_back(range);
  }
  ESS_RETURN_IF_ERROR(ValidateSelection(selection, field));
  return selection;
}

absl::StatusOr<LayerSelection> ParseLayers(std::string_view text) {
  LayerSelection selection;
  for (const std::string& part : SplitList(text)) {
    if (IsLayerName(part)) {
      selection.names.emplace_back(part);
      continue;
    }
    ESS_ASSIGN_OR_RETURN(const IndexRange range, ParseRange(part, "layers"));
    selection.indices.ranges.push_back(range);
  }
  ESS_RETURN_IF_ERROR(ValidateSelection(selection.indices, "layers"));
  return selection;
}

}  // namespace ess::inference
