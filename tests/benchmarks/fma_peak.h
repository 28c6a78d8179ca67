// What this machine can do at most: the yardstick of the benchmark tables.
#pragma once

#include "server/base/worker_pool.h"

namespace ess {

// Float64 multiply-adds on registers alone, in GFLOP/s, of all threads of the pool at once. Takes
// 0.3 s.
double MeasureFmaPeak(WorkerPool& pool);

}  // namespace ess
