// The tables that show what the engine is worth: against the published method and its rivals, on
// this machine, in one run. docs/benchmarks.md has the last one.
//
//   ess_benchmark [--quick] [PART ...] [LENGTH ...]
//
// --quick: shorter operators, fewer positions: 2 minutes, not 10. PART: only these parts, by the
// names below. LENGTH: only these lengths of operators, ascending.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "hwy/targets.h"
#include "tests/benchmarks/demo_model.h"
#include "tests/benchmarks/dense_measures.h"
#include "tests/benchmarks/dense_tree.h"
#include "tests/benchmarks/fma_peak.h"
#include "tests/benchmarks/memory_limits.h"
#include "tests/benchmarks/model_stage.h"
#include "tests/benchmarks/native_routes.h"
#include "tests/benchmarks/operator_table.h"
#include "tests/benchmarks/tensor_route.h"
#include "tests/benchmarks/threads.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

struct Part {
  std::string_view name;
  void (*run)(const Settings& settings, Limits& limits);
};

constexpr Part kParts[] = {
    {"operators", RunOperatorTable}, {"tree", RunDenseTree},      {"measures", RunDenseMeasures},
    {"native", RunNativeRoutes},     {"memory", RunMemoryLimits}, {"threads", RunThreads},
    {"tensors", RunTensorRoute},     {"model", RunModelStage},
};

int Run(const std::vector<std::string_view>& arguments) {
  Settings settings;
  std::vector<std::string_view> chosen;
  for (const std::string_view argument : arguments) {
    const bool known = std::any_of(std::begin(kParts), std::end(kParts),
                                   [&](const Part& part) { return part.name == argument; });
    if (argument == "--quick") {
      settings.quick = true;
    } else if (known) {
      chosen.push_back(argument);
    } else if (const int64_t length = std::atoll(argument.data()); length >= 64) {
      settings.lengths.push_back(length);
    } else {
      std::cerr << fmt::format("unknown argument {}\n", argument);
      return 1;
    }
  }
  if (settings.lengths.empty()) {
    settings.lengths = {256, 512, 1024};
    if (!settings.quick) settings.lengths.insert(settings.lengths.end(), {2048, 4096});
  }
  const absl::StatusOr<DemoModel> demo_model = DemoModel::Load();
  if (demo_model.ok()) {
    settings.demo_model = &*demo_model;
  } else {
    std::cout << fmt::format("without a real model: {}\n",
                             std::string(demo_model.status().message()));
  }
  WorkerPool one_core(1);
  settings.fma_peak = MeasureFmaPeak(one_core);
  std::cout << fmt::format("float64; FMA peak of one core {:.1f} GFLOP/s, instruction set {}\n",
                           settings.fma_peak,
                           hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
  Limits limits;
  for (const Part& part : kParts) {
    const bool wanted =
        chosen.empty() || std::find(chosen.begin(), chosen.end(), part.name) != chosen.end();
    if (!wanted) continue;
    const double start = Now();
    std::cout << fmt::format("\n-- {}\n", part.name) << std::flush;
    part.run(settings, limits);
    std::cout << fmt::format("({:.0f} s)\n", Now() - start) << std::flush;
  }
  std::cout << "\n";
  limits.Print();
  return 0;
}

}  // namespace
}  // namespace ess::benchmarks

int main(int argc, char** argv) {
  return ess::benchmarks::Run(std::vector<std::string_view>(argv + 1, argv + argc));
}
