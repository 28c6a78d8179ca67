// Bytes for people.
#pragma once

#include <cstdint>
#include <string>

namespace ess {

// "37 bytes", "1.5 KiB", "64.0 MiB", "1.2 GiB".
std::string ByteText(int64_t bytes);

}  // namespace ess
