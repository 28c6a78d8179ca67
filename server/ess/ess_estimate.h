// What a computation would cost: routes, time and memory, before it runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/ess/ess_options.h"
#include "server/ess/measure.h"
#include "server/ess/route.h"

namespace ess {

// Of one head.
struct EssEstimate {
  std::vector<RouteSet> routes;  // Per measure, when no position is in doubt.
  double flops = 0;              // In units of FloatSpeed(): slower work counts for more.
  int64_t scratch_bytes = 0;     // Of the thread that computes it.
};

// Cost: O(measures * positions), no arithmetic on operators.
// REQUIRES: arguments that EssEngine::Compute takes for an operator of this shape.
EssEstimate EstimateEss(const OperatorShape& shape, std::span<const int64_t> positions,
                        std::span<const Measure> measures, const EssOptions& options);

// Floating point operations per second of one thread in float64 matrix products, measured by the
// first call (some milliseconds) and then kept. Thread-safe.
double FloatSpeed();

}  // namespace ess
