// What a second thread brings, beside what it could bring on this machine.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunThreads(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
