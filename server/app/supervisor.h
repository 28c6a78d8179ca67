// What the service manager that started this process is told (sd_notify of systemd).
#pragma once

#include <string_view>

namespace ess {

// Sends `state` ("READY=1", "STOPPING=1") to the socket that NOTIFY_SOCKET names. Does nothing when
// there is no such variable; a message that cannot be sent is logged.
void NotifySupervisor(std::string_view state);

}  // namespace ess
