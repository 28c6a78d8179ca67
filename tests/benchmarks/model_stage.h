// The ESS stage of a real model: every position of every head over a text, by the engine as the
// server runs it, against SVD at every position on the same threads.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunModelStage(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
