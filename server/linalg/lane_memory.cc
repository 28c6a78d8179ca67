#include "server/linalg/lane_memory.h"

#include <algorithm>

namespace ess::linalg {

LaneMemory::LaneMemory(int64_t size) {
  numbers_.Reserve(size);
  std::fill_n(numbers_.data(), size, 0.0);
}

int64_t BytesOf(std::initializer_list<const LaneMemory*> memories) {
  int64_t bytes = 0;
  for (const LaneMemory* memory : memories) bytes += memory->bytes();
  return bytes;
}

}  // namespace ess::linalg
