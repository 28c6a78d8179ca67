// How close the inertia tree comes to what one core can do, and to the prototype.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

// Random attention, every position, one thread: the tree of one tolerance, a further tolerance, the
// prototype.
void RunDenseTree(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
