// The table that wins the argument: every kind of operator at every length, by the engine and by
// its rivals.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunOperatorTable(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
