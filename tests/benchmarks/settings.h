// What the parts of ess_benchmark have in common.
#pragma once

#include <cstdint>
#include <vector>

namespace ess::benchmarks {

class DemoModel;

struct Settings {
  bool quick = false;   // Fewer lengths, fewer positions: under 2 minutes in all.
  double fma_peak = 0;  // Of one core, float64, GFLOP/s, measured at the start of this run.
  const DemoModel* demo_model = nullptr;  // Null where it is not installed.
};

// The lengths of the tables.
inline std::vector<int64_t> Lengths(const Settings& settings) {
  if (settings.quick) return {256, 512, 1024};
  return {256, 512, 1024, 2048, 4096};
}

// All rows count singular values above this, but where they say otherwise.
inline constexpr double kTolerance = 1e-3;
// Times L^3: operations that the inertia tree of one tolerance cannot do without.
inline constexpr double kTreeOperations = 0.54;

}  // namespace ess::benchmarks
