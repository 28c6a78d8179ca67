#include "tests/benchmarks/threads.h"

#include <algorithm>
#include <iostream>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/fma_peak.h"
#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {

void RunThreads(const Settings& settings, Limits& limits) {
  constexpr int64_t kHeads = 32;
  const int64_t length = settings.quick ? 512 : 1024;
  const std::vector<double> matrix = testing::MakeTestOperator("attention_g1", length);
  const auto op = DenseFromMatrix(matrix, length, kHeads);
  const std::vector<Measure> measures = Measures({"tolerance:1e-3"});
  EngineRun one(1);
  EngineRun two(2);
  WorkerPool one_core(1);
  WorkerPool two_cores(2);
  double one_seconds = kNotYet;
  double two_seconds = kNotYet;
  double one_peak = 0;
  double two_peak = 0;
  for (int turn = 0; turn < 4; ++turn) {
    KeepBest(one_seconds, [&] { one(*op, kHeads, measures); });
    KeepBest(two_seconds, [&] { two(*op, kHeads, measures); });
    one_peak = std::max(one_peak, MeasureFmaPeak(one_core));
    two_peak = std::max(two_peak, MeasureFmaPeak(two_cores));
  }
  const double gain = one_seconds / two_seconds;
  const double possible = two_peak / one_peak;
  std::cout << fmt::format(
      "{} heads of random attention, L={}, the whole engine: {:.1f} ms on one thread, {:.1f} on "
      "two: "
      "{:.2f}x\nthe machine: {:.1f} GFLOP/s of multiply-adds on one thread, {:.1f} on two at once: "
      "{:.2f}x\n",
      kHeads, length, one_seconds * 1e3, two_seconds * 1e3, gain, one_peak, two_peak, possible);
  limits.AtLeast(fmt::format("two threads against one, {} heads, L={}", kHeads, length), 1.8, gain,
                 "x");
  limits.AtLeast("the same for multiply-adds on registers: the machine's own", 1.8, possible, "x");
}

}  // namespace ess::benchmarks
