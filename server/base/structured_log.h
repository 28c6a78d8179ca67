// The form of the log: lines of text, or one JSON object per line; and events with fields.
#pragma once

#include <string_view>

#include "nlohmann/json_fwd.hpp"

namespace ess {

enum class LogFormat {
  kText,  // 2026-01-31T12:00:00.000+00:00 info request id=1f rpc=Profile code=OK error="a b"
  kJson,  // {"time":"2026-01-31T12:00:00.000+00:00","level":"info","message":"request","id":"1f",...}
};

// From here on the log goes to standard error in this format. Call it while there is one thread.
void StartLog(LogFormat format);

// Logs an event with fields, an object, at level info. As text an inner object's fields stand among
// the others, and what is not plain is quoted and escaped, so that a line stays one line.
void LogEvent(std::string_view event, const nlohmann::ordered_json& fields);

}  // namespace ess
