// Entropies and relative tolerances of dense operators, against SVD at every position.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunDenseMeasures(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
