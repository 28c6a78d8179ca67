// One prompt of a job: a line {"text": "..."} or {"token_ids": [...]}, with an optional "id".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::jobs {

// As long as a message: a prompt that Profile takes fits.
inline constexpr int64_t kMaxLineBytes = 1 << 20;
inline constexpr int64_t kMaxPromptIdBytes = 256;

struct JobPrompt {
  std::string id;
  std::variant<std::string, std::vector<int64_t>> content;  // Text or token ids; not empty.
};

// `ordinal`: of the prompt, its id where the line has none. `line_number` counts from 1, for
// messages.
// Errors: kInvalidArgument  not JSON, no object, an unknown or ill-typed field, neither or both of
//         text and token_ids, an empty one: names the line and the field, never the text.
absl::StatusOr<JobPrompt> ParsePromptLine(std::string_view line, int64_t ordinal,
                                          int64_t line_number);

}  // namespace ess::jobs
