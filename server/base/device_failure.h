// Whether the accelerator can still work. An error such as an illegal memory access breaks its
// context for good, for the whole process: every later call fails, and only a new process helps.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ess {

// Whether an accelerator's error of this text breaks its context. Being out of memory does not.
bool BreaksTheDevice(std::string_view error);

// Remembers the first such error of the process. Thread-safe.
void RecordDeviceFailure(std::string_view error);

// The recorded error; none while the device works. Thread-safe.
std::optional<std::string> DeviceFailure();

}  // namespace ess
