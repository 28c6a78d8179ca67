// How much memory operators in flight take, on one thread.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunMemoryLimits(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
