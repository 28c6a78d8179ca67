// The route of batched tensors on the CPU against the host's tree. It is meant for accelerators;
// this shows that its arithmetic is not wasteful.
#pragma once

#include "tests/benchmarks/limits.h"
#include "tests/benchmarks/settings.h"

namespace ess::benchmarks {

void RunTensorRoute(const Settings& settings, Limits& limits);

}  // namespace ess::benchmarks
