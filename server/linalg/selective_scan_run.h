// The selective scan of a CPU: channels in the lanes of vectors, states in the first cache.
#pragma once

#include <cstdint>

namespace ess::linalg {

// Channels that run together; every array is padded to whole groups.
inline constexpr int64_t kScanGroup = 16;

// Arrays of float32, rows one after the other. G groups, N states, L positions.
struct SelectiveScanArrays {
  int64_t groups = 0;
  int64_t states = 0;
  const float* rates = nullptr;  // [G, N, 16]: A / log 2, so that gates are powers of 2.
  float* memory = nullptr;       // [G, N, 16]: the states, before and after.
  const float* x = nullptr;      // [L, G, 16]
  const float* delta = nullptr;  // [L, G, 16]
  const float* B = nullptr;      // [L, N]
  const float* C = nullptr;      // [L, N]
  float* y = nullptr;            // [L, G, 16]
};

// Runs one group of channels over the positions [first, end). A channel's bits do not depend on the
// others. Cost: about 10 ns a position and state for the 16 channels.
void ScanGroup(const SelectiveScanArrays& arrays, int64_t group, int64_t first, int64_t end);

}  // namespace ess::linalg
