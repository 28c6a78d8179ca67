#include "tests/benchmarks/dense_tree.h"

#include <cmath>
#include <iostream>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/inertia_tree.h"
#include "tests/benchmarks/prototype_tree.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

struct TreeRow {
  double tree_seconds = kNotYet;  // Load and one tolerance.
  double next_seconds = kNotYet;  // Each further tolerance.
  double prototype_seconds = kNotYet;
};

TreeRow TimeTree(const std::vector<double>& matrix, int64_t length) {
  const CancellationToken never;
  TreeRow row;
  linalg::InertiaTree tree;
  std::unique_ptr<PrototypeTree> prototype;
  if (WhyNoPrototype().empty()) prototype = MakePrototypeTree(matrix, length);
  const auto count = [&] { ValueOrExit(tree.CountAbove(kTolerance, 1, never)); };
  for (int turn = 0; turn < 3; ++turn) {
    KeepBest(row.tree_seconds, [&] {
      ExitUnlessOk(tree.Load(matrix, length, never));
      count();
    });
    KeepBest(row.next_seconds, count);
    if (prototype != nullptr) {
      KeepBest(row.prototype_seconds, [&] { prototype->CountAbove(kTolerance * (1 + kTieNudge)); });
    }
  }
  return row;
}

void AddLimits(int64_t length, const TreeRow& row, double peak_share, Limits& limits) {
  if (length != 512 && length != 1024 && length != 2048) return;
  const std::string at = fmt::format(", L={}", length);
  limits.AtLeast("dense tree, share of the FMA peak" + at, length == 512 ? 70 : 75,
                 100 * peak_share, "%");
  const std::string race = "dense tree, speed against the prototype" + at;
  if (WhyNoPrototype().empty()) {
    limits.AtLeast(race, 0.9, row.prototype_seconds / row.tree_seconds, "x");
  } else {
    limits.NotMeasured(race, "no prototype");
  }
  limits.AtMost("each further tolerance, share of the first" + at, 0.65,
                row.next_seconds / row.tree_seconds, "x");
}

}  // namespace

void RunDenseTree(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "the tree alone: random attention, tolerance {}, every position, one thread; its operations\n"
      "are counted as {} L^3; next: each further tolerance; race: speed against the prototype\n",
      kTolerance, kTreeOperations);
  if (!WhyNoPrototype().empty()) {
    std::cout << fmt::format("no race against the prototype: {}\n", WhyNoPrototype());
  }
  std::cout << fmt::format("{:>5} {:>9} {:>6} {:>5} {:>9} {:>10} {:>6}\n", "L", "tree ms", "GF/s",
                           "peak", "next ms", "prototype", "race");
  int64_t previous_length = 0;
  double previous_seconds = 0;
  for (const int64_t length : settings.lengths) {
    const std::vector<double> matrix = testing::MakeTestOperator("attention_g1", length);
    const TreeRow row = TimeTree(matrix, length);
    const double operations = kTreeOperations * std::pow(static_cast<double>(length), 3);
    const double rate = operations / row.tree_seconds / 1e9;
    const bool raced = WhyNoPrototype().empty();
    std::cout << fmt::format(
                     "{:>5} {:>9.3f} {:>6.1f} {:>4.0f}% {:>9.3f} {:>10} {:>6}\n", length,
                     row.tree_seconds * 1e3, rate, 100 * rate / settings.fma_peak,
                     row.next_seconds * 1e3,
                     raced ? fmt::format("{:.3f}", row.prototype_seconds * 1e3) : "-",
                     raced ? fmt::format("{:.2f}x", row.prototype_seconds / row.tree_seconds) : "-")
              << std::flush;
    AddLimits(length, row, rate / settings.fma_peak, limits);
    if (length == 4096 && previous_length == 2048) {
      limits.AtMost("dense tree, L=4096 against L=2048", 10, row.tree_seconds / previous_seconds,
                    "x");
    }
    previous_length = length;
    previous_seconds = row.tree_seconds;
  }
}

}  // namespace ess::benchmarks
