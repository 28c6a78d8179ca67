#include "tests/benchmarks/operator_table.h"

#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/demo_model.h"
#include "tests/benchmarks/operator_race.h"

namespace ess::benchmarks {
namespace {

constexpr char kInertiaTree[] = "inertia_tree";

// Peak memory in what it grows with: L^2 doubles, or L n doubles for a native route, of all
// channels of a group.
std::string Memory(const RaceResult& result, int64_t length, int64_t states, int64_t heads) {
  const bool dense = result.route == kInertiaTree;
  const int64_t unit = dense ? length * length : length * states * heads;
  return fmt::format("{:.1f} {}", result.peak_bytes / static_cast<double>(8 * unit),
                     dense ? "L^2" : "L n");
}

// Of the engine's whole time, where the operations of its answer are known.
std::string PeakShare(const RaceResult& result, int64_t length, const Settings& settings) {
  if (result.route != kInertiaTree) return "-";
  const double cube = std::pow(static_cast<double>(length), 3);
  const double rate = kTreeOperations * cube / result.one_thread / 1e9;
  return fmt::format("{:.0f}%", 100 * rate / settings.fma_peak);
}

std::string CountRow(const std::string& name, int64_t length, const RaceResult& result,
                     const Settings& settings) {
  return fmt::format(
      "{:<16} {:>5} {:>9.3f} {:>9.3f} {:>5} {:>9.3f}{} {:>7.0f}x {:>9.3f} {:>6.0f}x {:>4} "
      "{:>6}/{:<4} {}\n",
      name, length, result.one_thread * 1e3, result.two_threads * 1e3,
      PeakShare(result, length, settings), result.svd, result.extrapolated ? '*' : ' ',
      result.svd / result.one_thread, result.gram, result.gram / result.one_thread,
      result.gram_wrong, result.wrong, result.compared, result.route);
}

std::string MeasureRow(const std::string& name, int64_t length, const RaceResult& result,
                       const std::string& memory) {
  return fmt::format("{:<16} {:>5} {:>9.3f} {:>7.0f}x {:>9.3f} {:>7.0f}x {:>9.0e} {:>8.1f} {:>9}\n",
                     name, length, result.five * 1e3, result.svd / result.five,
                     result.entropy * 1e3, result.svd / result.entropy, result.entropy_error,
                     result.peak_bytes / (1 << 20), memory);
}

void AddLimits(const std::string& name, int64_t length, const RaceResult& result, Limits& limits) {
  const auto against_svd = [&](const std::string& family, int64_t at, const std::string& what,
                               double asked, double seconds) {
    if (name != family || length != at) return;
    limits.AtLeast(fmt::format("{}, {}, against SVD, L={}", name, what, at), asked,
                   result.svd / seconds, "x");
  };
  const std::string dense = "random attention";
  against_svd(dense, 512, "one tolerance", 350, result.one_thread);
  against_svd(dense, 1024, "one tolerance", 600, result.one_thread);
  against_svd(dense, 2048, "one tolerance", 1000, result.one_thread);
  against_svd("GLA n=64", 1024, "five tolerances", 1500, result.five);
  against_svd("S6 n=16", 1024, "one tolerance", 40000, result.one_thread);
  against_svd("window W=128", 2048, "five tolerances", 600, result.five);
  if (name == dense && length == 4096) {
    limits.AtMost(fmt::format("random attention, wrong counts of {}, L=4096", result.compared), 0,
                  static_cast<double>(result.wrong), "");
  }
}

}  // namespace

void RunOperatorTable(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "all operators: tolerance {}, every position, one head or channel, the engine as the server\n"
      "runs it; * extrapolated from evenly spaced positions; wrong/of: five tolerances against "
      "SVD\n"
      "{:<16} {:>5} {:>9} {:>9} {:>5} {:>10} {:>8} {:>9} {:>7} {:>4} {:>6}/{:<4} {}\n",
      kTolerance, "counts", "L", "1 thr ms", "2 thr ms", "peak", "SVD s", "ratio", "Gram s",
      "ratio", "bad", "wrong", "of", "route");
  std::vector<OperatorFamily> families = OperatorFamilies();
  if (settings.demo_model != nullptr) {
    families.insert(families.begin() + 1, {"real attention", 0, [&](int64_t length) {
                                             return ValueOrExit(settings.demo_model->Heads(length));
                                           }});
  } else {
    limits.NotMeasured("attention of the demo model", "no demo model");
  }
  std::string measures =
      fmt::format("{:<16} {:>5} {:>9} {:>8} {:>9} {:>8} {:>9} {:>8} {:>9}\n", "more measures", "L",
                  "5 taus ms", "SVD", "entropy", "SVD", "error", "peak MiB", "memory");
  int64_t wrong = 0;
  int64_t compared = 0;
  for (const OperatorFamily& family : families) {
    for (const int64_t length : settings.lengths) {
      const OperatorCase contested = family.make(length);
      const RaceResult result = RaceOperator(contested, settings);
      std::cout << CountRow(family.name, length, result, settings) << std::flush;
      measures += MeasureRow(family.name, length, result,
                             Memory(result, length, family.states, contested.one_thread_heads));
      AddLimits(family.name, length, result, limits);
      wrong += result.wrong;
      compared += result.compared;
    }
  }
  std::cout << "\n" << measures << std::flush;
  limits.AtMost(fmt::format("all operators, wrong counts of {}", compared), 0,
                static_cast<double>(wrong), "");
}

}  // namespace ess::benchmarks
