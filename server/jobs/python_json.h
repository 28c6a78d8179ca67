// JSON text as Python's json.dumps(sort_keys=True, ensure_ascii=False) writes it: what the client
// saves and what the server saves are then the same bytes.
#pragma once

#include <string>
#include <string_view>

namespace ess::jobs {

// With its quotes. `text` is UTF-8.
void AppendJsonString(std::string_view text, std::string& out);

// The shortest digits that parse back, as repr() writes them: "0.1", "1e-05", "3.0"; null unless
// finite.
void AppendJsonNumber(double value, std::string& out);

// Bytes that no number exceeds.
inline constexpr int kMaxNumberBytes = 24;

}  // namespace ess::jobs
