// How large messages are.
#pragma once

#include <cstddef>

namespace ess::rpc {

// No message of ours exceeds it, in either direction.
inline constexpr size_t kMaxMessageBytes = 1 << 20;

// Payload after which a message is sent. The rest of a message (names, shapes) is far below the
// other half of 1 MiB.
inline constexpr size_t kPayloadBytes = 512 << 10;

}  // namespace ess::rpc
