#include "server/jobs/prompt_line.h"

#include <cstdint>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "server/base/cut_text.h"
#include "server/base/json_file.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

using nlohmann::json;

absl::Status Wrong(int64_t line_number, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("prompts: line {}: {}", line_number, what));
}

absl::StatusOr<std::string> ReadId(const json& value, int64_t line_number) {
  if (!value.is_string()) return Wrong(line_number, "id is no string");
  const std::string& id = value.get_ref<const std::string&>();
  if (id.empty()) return Wrong(line_number, "id is empty; leave it out for the ordinal");
  if (std::ssize(id) > kMaxPromptIdBytes) {
    return Wrong(line_number,
                 fmt::format("id has {} bytes; the limit is {}", id.size(), kMaxPromptIdBytes));
  }
  return id;
}

absl::StatusOr<std::vector<int64_t>> ReadTokenIds(const json& value, int64_t line_number) {
  if (!value.is_array()) return Wrong(line_number, "token_ids is no list");
  if (value.empty()) {
    return Wrong(line_number, "token_ids has no tokens; at least 1 is needed");
  }
  std::vector<int64_t> ids;
  for (const json& id : value) {
    if (!id.is_number_integer() ||
        (id.is_number_unsigned() && id.get<uint64_t>() > uint64_t{INT64_MAX})) {
      return Wrong(line_number, fmt::format("token_ids[{}] is no integer of 64 bits", ids.size()));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace

absl::StatusOr<JobPrompt> ParsePromptLine(std::string_view line, int64_t ordinal,
                                          int64_t line_number) {
  const absl::StatusOr<json> parsed = ParseJson(std::string(line), "the prompt");
  if (!parsed.ok()) {
    // The parser's own words quote the prompt.
    const std::string why(parsed.status().message());
    const bool syntax = why.find("not JSON") != std::string::npos;
    return Wrong(line_number, syntax ? "not JSON in UTF-8" : CutText(why));
  }
  if (!parsed->is_object()) {
    return Wrong(line_number, R"(not an object; it is {"text": "..."} or {"token_ids": [...]})");
  }
  JobPrompt prompt{.id = std::to_string(ordinal), .content = {}};
  int contents = 0;
  for (const auto& [field, value] : parsed->items()) {
    if (field == "id") {
      ESS_ASSIGN_OR_RETURN(prompt.id, ReadId(value, line_number));
    } else if (field == "text") {
      if (!value.is_string()) return Wrong(line_number, "text is no string");
      if (value.get_ref<const std::string&>().empty()) {
        return Wrong(line_number, "text is empty; at least 1 token is needed");
      }
      prompt.content = value.get<std::string>();
      ++contents;
    } else if (field == "token_ids") {
      ESS_ASSIGN_OR_RETURN(prompt.content, ReadTokenIds(value, line_number));
      ++contents;
    } else {
      return Wrong(line_number,
                   fmt::format("unknown field '{}'; id, text and token_ids exist", CutText(field)));
    }
  }
  if (contents == 1) return prompt;
  return Wrong(line_number,
               contents == 0 ? "neither text nor token_ids" : "both text and token_ids; give one");
}

}  // namespace ess::jobs
