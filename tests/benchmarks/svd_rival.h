// The published method: a singular value decomposition at every position, by LibTorch (MKL).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/base/worker_pool.h"

namespace ess::benchmarks {

// `count` evenly spaced positions of 1 .. L-1, or all of them when there are no more.
std::vector<int64_t> EvenPositions(int64_t length, int64_t count);

// Singular values at some positions, [position][singular value], and the seconds that they took,
// times (L - 1) / positions: what all positions would take. The threads share out the positions.
struct SvdRun {
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> sigma;
  double seconds = 0;
  bool extrapolated = false;
};
SvdRun RunSvd(std::span<const double> matrix, int64_t length, std::vector<int64_t> positions,
              WorkerPool& pool);

}  // namespace ess::benchmarks
