// The table that shows what the engine is worth: against the published method and its rivals, on
// this machine, in one run. docs/benchmarks.md has the last one.
//
//   ess_benchmark [--quick]
#include <cstring>
#include <iostream>

#include "fmt/format.h"
#include "hwy/targets.h"
#include "tests/benchmarks/dense_tree.h"
#include "tests/benchmarks/fma_peak.h"

int main(int argc, char** argv) {
  using namespace ess::benchmarks;
  Settings settings{.quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0,
                    .fma_peak = ess::MeasureFmaPeak()};
  std::cout << fmt::format("float64; FMA peak of one core {:.1f} GFLOP/s, instruction set {}\n\n",
                           settings.fma_peak,
                           hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
  Limits limits;
  RunDenseTree(settings, limits);
  std::cout << "\n";
  limits.Print();
  return 0;
}
