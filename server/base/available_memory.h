// How much memory the process may still take.
#pragma once

#include <cstdint>

namespace ess {

// Bytes of host memory that can be allocated without swapping, by /proc/meminfo and, in a container
// with a limit, by its control group (version 2). The largest number where neither can be read.
// Cost: reads three small files.
int64_t AvailableMemoryBytes();

}  // namespace ess
