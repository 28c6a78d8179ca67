#include "server/base/json_file.h"

#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess {
namespace {

// Puts quotes around the bare words, outside of strings.
std::string QuoteBareWords(const std::string& text) {
  std::string result;
  result.reserve(text.size() + 16);
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    if (in_string) {
      const size_t taken = text[i] == '\\' && i + 1 < text.size() ? 2 : 1;
      in_string = taken == 2 || text[i] != '"';
      result.append(text, i, taken);
      i += taken;
      continue;
    }
    bool replaced = false;
    for (const char* word : {"-Infinity", "Infinity", "NaN"}) {
      if (text.compare(i, std::char_traits<char>::length(word), word) != 0) continue;
      result += fmt::format("\"{}\"", word);
      i += std::char_traits<char>::length(word);
      replaced = true;
      break;
    }
    if (replaced) continue;
    in_string = text[i] == '"';
    result += text[i++];
  }
  return result;
}

// Far above any config. What walks a value, nlohmann::json itself included, recurses: a file of
// nothing but '[' would end the process.
constexpr int kMaxDepth = 64;

// Finds the first key that an object has twice, which nlohmann::json would silently keep once, and
// leaves out what is nested too deep.
class StructureCheck {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    too_deep_ |= depth > kMaxDepth;
    if (too_deep_) return false;
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key) {
      const std::string key = parsed.get<std::string>();
      if (!keys_.back().insert(key).second && duplicate_.empty()) duplicate_ = key;
    }
    return true;
  }
  const std::string& duplicate() const { return duplicate_; }
  bool too_deep() const { return too_deep_; }

 private:
  std::vector<std::set<std::string>> keys_;
  std::string duplicate_;
  bool too_deep_ = false;
};

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path,
                                         const std::string& display_name, size_t max_bytes) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::DataLossError(fmt::format("{}: cannot be read", display_name));
  if (size > max_bytes) {
    return absl::DataLossError(
        fmt::format("{}: {} bytes; the limit is {}", display_name, size, max_bytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.size() != size) {
    return absl::DataLossError(fmt::format("{}: cannot be read", display_name));
  }
  return text;
}

absl::StatusOr<nlohmann::json> ParseJson(const std::string& text, const std::string& display_name) {
  StructureCheck check;
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(QuoteBareWords(text), std::ref(check));
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(
        fmt::format("{}: not JSON: {}", display_name, CutText(error.what())));
  }
  if (check.too_deep()) {
    return absl::DataLossError(
        fmt::format("{}: nested deeper than {} levels", display_name, kMaxDepth));
  }
  if (!check.duplicate().empty()) {
    return absl::DataLossError(
        fmt::format("{}: the key '{}' is there twice", display_name, CutText(check.duplicate())));
  }
  return json;
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::filesystem::path& path,
                                            const std::string& display_name, size_t max_bytes) {
  ESS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, display_name, max_bytes));
  return ParseJson(text, display_name);
}

}  // namespace ess
