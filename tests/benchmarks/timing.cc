#include "tests/benchmarks/timing.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

namespace ess::benchmarks {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void KeepBest(double& best, absl::FunctionRef<void()> work, double budget) {
  const double end = Now() + budget;
  do {
    const double start = Now();
    work();
    best = std::min(best, Now() - start);
  } while (Now() < end);
}

double BestSeconds(absl::FunctionRef<void()> work, double budget) {
  double best = kNotYet;
  for (int turn = 0; turn < 3; ++turn) KeepBest(best, work, budget / 3);
  return best;
}

int Turns(int64_t length) {
  if (length <= 1024) return 3;
  return length <= 2048 ? 2 : 1;
}

void ExitUnlessOk(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}

}  // namespace ess::benchmarks
