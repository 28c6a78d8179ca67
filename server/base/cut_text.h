// Text that others chose, for messages.
#pragma once

#include <cstddef>
#include <string>

namespace ess {

// Of what a file or a request says, in a message.
inline constexpr size_t kMaxQuotedBytes = 200;

// At most `max_bytes` of the text, and "..." behind what was cut. Never cuts inside a UTF-8
// character.
std::string CutText(std::string text, size_t max_bytes = kMaxQuotedBytes);

}  // namespace ess
