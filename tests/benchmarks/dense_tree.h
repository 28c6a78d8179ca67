// How close the inertia tree comes to what one core can do, and to the prototype.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

// Random attention, one tolerance, every position, L = 256 ... 4096, one thread: the tree alone, a
// further tolerance, the whole engine, the prototype, SVD at every position. Then memory, threads.
void RunDenseTree(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
