// How much memory devices have, and giving it back.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ess {

struct DeviceMemory {
  int64_t allocated_bytes = 0;  // In tensors; on the CPU, in all blocks of memory.
  int64_t reserved_bytes = 0;   // Taken from the system by this process's allocator.
  int64_t free_bytes = 0;       // For everybody.
  int64_t total_bytes = 0;      // Of an accelerator; on the CPU, that are free.
};

// `device`: as ResolveDevice answers. Touches the device.
// Errors: kInternal  the device does not say.
absl::StatusOr<DeviceMemory> ReadDeviceMemory(const std::string& device);

// Waits for the device's work and gives memory that no tensor holds back to the system: that of the
// device's caching allocator, and the host's.
absl::Status ReleaseUnusedMemory(const std::string& device);

}  // namespace ess
