#include "tests/benchmarks/timing.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

namespace ess::benchmarks {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double BestSeconds(absl::FunctionRef<void()> work, double budget) {
  double best = 1e300;
  const double end = Now() + budget;
  for (int run = 0; run < 3 || Now() < end; ++run) {
    const double start = Now();
    work();
    best = std::min(best, Now() - start);
  }
  return best;
}

void ExitUnlessOk(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}

}  // namespace ess::benchmarks
