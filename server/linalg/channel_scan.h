// Gates, inputs and outputs of selective scans, made from step sizes for one channel in each lane.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

// Where the arguments of one channel lie; channels may share any of them.
struct ScanChannel {
  const double* steps = nullptr;    // delta [L]
  const double* rates = nullptr;    // A [N]
  const double* inputs = nullptr;   // B [L, N]
  const double* outputs = nullptr;  // C [L, N]
};

// Writes a = exp(delta_t A), b = delta_t B_t and c = C_t of `channels` at positions
// [first, first + count), each row-major [count, N, lanes]. Lanes without a channel: a = 1,
// b = c = 0. A channel's bits do not depend on the lane it is in, nor on the number of lanes.
// Cost: 2 ns for each gate of 8 lanes with AVX-512, its input and its output.
// REQUIRES: at most `lanes` channels.
void WriteScanLanes(std::span<const ScanChannel> channels, int64_t states, int64_t lanes,
                    int64_t first, int64_t count, double* a, double* b, double* c);

}  // namespace ess::linalg
