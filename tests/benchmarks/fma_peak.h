// What one core of this machine can do at most: the yardstick of the benchmark tables.
#pragma once

namespace ess {

// Float64 multiply-adds on registers alone, in GFLOP/s, on the calling thread. Takes 0.2 s.
double MeasureFmaPeak();

}  // namespace ess
