#include "tests/benchmarks/memory_limits.h"

#include <iostream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/memory.h"
#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

constexpr double kMebibyte = 1 << 20;
constexpr int64_t kLayerChannels = 1536;

double PeakOf(const operators::SequenceOperator& op, int64_t heads,
              const std::vector<Measure>& measures) {
  return PeakBytes([&] { EngineRun(1)(op, heads, measures); });
}

void Print(const std::string& what, double bytes, const std::string& unit) {
  std::cout << fmt::format("{:<62} {:>8.1f} MiB  {}\n", what, bytes / kMebibyte, unit)
            << std::flush;
}

void MeasureDense(Limits& limits) {
  constexpr int64_t kLength = 2048;
  const OperatorCase dense = MakeOperatorCase("random attention", kLength);
  const auto measure = [&](const std::string& what, const std::vector<Measure>& measures) {
    const double bytes = PeakOf(*dense.op, 1, measures);
    const double squares = bytes / (8 * kLength * kLength);
    const std::string name = fmt::format("memory, dense, {}, L={}", what, kLength);
    Print(name, bytes, fmt::format("{:.2f} L^2 doubles", squares));
    limits.AtMost(name, 4, squares, " L^2");
  };
  measure("one tolerance", Measures({"tolerance:1e-3"}));
  measure("tolerance and entropy", Measures({"tolerance:1e-3", "entropy"}));
}

void MeasureRecurrence(const std::string& family, int64_t states, Limits& limits) {
  double previous = 0;
  for (const int64_t length : {2048, 4096}) {
    const OperatorCase recurrence = MakeOperatorCase(family, length);
    const int64_t heads = recurrence.one_thread_heads;
    const double bytes = PeakOf(*recurrence.op, heads, Measures({"tolerance:1e-3", "entropy"}));
    const std::string name = fmt::format("memory, {}, L={}", family, length);
    const double units = static_cast<double>(8 * length * states * heads);
    Print(name, bytes, fmt::format("{:.1f} L n doubles", bytes / units));
    if (previous > 0) {
      limits.AtMost(name + " against L=2048, linear is 2", 2.2, bytes / previous, "x");
    }
    previous = bytes;
  }
}

// A whole layer, with the answers that are asked for.
void MeasureLayer(Limits& limits) {
  constexpr int64_t kLength = 1024;
  const auto layer = MakeSelectiveScan(kLength, kLayerChannels);
  double seconds = kNotYet;
  const double bytes = PeakBytes([&] {
    KeepBest(
        seconds, [&] { EngineRun(1)(*layer, kLayerChannels, Measures({"tolerance:1e-3"})); }, 0);
  });
  const std::string name =
      fmt::format("memory, S6 layer of {} channels, L={}", kLayerChannels, kLength);
  Print(name, bytes, fmt::format("answers included; {:.2f} s", seconds));
  limits.AtMost(name, 64, bytes / kMebibyte, " MiB");
}

}  // namespace

void RunMemoryLimits(const Settings&, Limits& limits) {
  std::cout << "memory beside the operator, at the highest, by the kernel's count, one thread\n";
  MeasureDense(limits);
  MeasureRecurrence("GLA n=64", 64, limits);
  MeasureRecurrence("Mamba-2 n=128", 128, limits);
  MeasureRecurrence("DeltaNet n=64", 64, limits);
  MeasureLayer(limits);
}

}  // namespace ess::benchmarks
