// What the parts of ess_benchmark have in common.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ess::benchmarks {

class DemoModel;

struct Settings {
  bool quick = false;            // Fewer positions, and fewer lengths where none are named.
  std::vector<int64_t> lengths;  // Of the tables, ascending.
  double fma_peak = 0;  // Of one core, float64, GFLOP/s, measured at the start of this run.
  const DemoModel* demo_model = nullptr;  // Null where it is not installed.

  bool Has(int64_t length) const {
    return std::find(lengths.begin(), lengths.end(), length) != lengths.end();
  }
};

// All rows count singular values above this, but where they say otherwise.
inline constexpr double kTolerance = 1e-3;
// Times L^3: operations that the inertia tree of one tolerance cannot do without.
inline constexpr double kTreeOperations = 0.54;

}  // namespace ess::benchmarks
