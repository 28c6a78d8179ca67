// What a recurrence's own route is worth: against forming T and going the dense way, in one run.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunNativeRoutes(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
