// What the parts of ess_benchmark have in common.
#pragma once

namespace ess::benchmarks {

struct Settings {
  bool quick = false;   // Fewer lengths, fewer positions: under 3 minutes in all.
  double fma_peak = 0;  // Of one core, float64, GFLOP/s, measured at the start of this run.
};

// All rows count singular values above this, but where they say otherwise.
inline constexpr double kTolerance = 1e-3;
// Ties are not counted: the reference compares with tau (1 + kTie), as the engine does.
inline constexpr double kTie = 1e-11;

}  // namespace ess::benchmarks
