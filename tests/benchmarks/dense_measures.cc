#include "tests/benchmarks/dense_measures.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/demo_model.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/svd_rival.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

constexpr double kFractions[] = {1e-1, 1e-2, 1e-3};
constexpr char kReal[] = "real heads";

struct Row {
  double entropy = kNotYet;      // Seconds of one head.
  std::vector<double> relative;  // Of each fraction alone.
  std::string route;             // Of the slowest of them.
  double svd = 0;
  double error = 0;
  int64_t wrong = 0;
  int64_t compared = 0;

  double SlowestRelative() const { return *std::max_element(relative.begin(), relative.end()); }
};

Row RunContest(const OperatorCase& contested, int64_t positions) {
  const operators::SequenceOperator& op = *contested.op;
  const int64_t length = op.length();
  const int64_t heads = contested.one_thread_heads;
  std::vector<std::vector<double>> matrices;
  std::vector<std::unique_ptr<SvdRival>> rivals;
  for (int64_t head = 0; head < heads; ++head) {
    matrices.push_back(DenseMatrix(op, head));
    rivals.push_back(std::make_unique<SvdRival>(matrices.back(), length,
                                                EvenPositions(length, positions / heads)));
  }
  EngineRun engine(1);
  WorkerPool alone(1);
  Row row;
  OperatorEss entropies;
  std::vector<OperatorEss> counts(std::size(kFractions));
  std::vector<double> seconds(std::size(kFractions), kNotYet);
  const int turns = length > 1024 ? 1 : 2;
  for (int turn = 0; turn < turns; ++turn) {
    KeepBest(row.entropy, [&] { entropies = engine(op, heads, Measures({"entropy"})); });
    for (size_t k = 0; k < counts.size(); ++k) {
      const std::string text = fmt::format("relative:{}", kFractions[k]);
      KeepBest(seconds[k], [&] { counts[k] = engine(op, heads, Measures({text})); });
    }
    for (const std::unique_ptr<SvdRival>& svd : rivals) svd->Run(alone);
  }
  const auto share = 1 / static_cast<double>(heads);
  row.entropy *= share;
  for (const double measured : seconds) row.relative.push_back(share * measured);
  const auto slowest = std::max_element(seconds.begin(), seconds.end()) - seconds.begin();
  row.route = counts[slowest].routes[0];
  for (int64_t head = 0; head < heads; ++head) {
    const SvdRival& svd = *rivals[head];
    const auto values = [&](const OperatorEss& ess) {
      return std::span(ess.values[0]).subspan(head * length, length);
    };
    row.svd += share * svd.Seconds();
    row.error = std::max(row.error, LargestEntropyError(svd, values(entropies)));
    for (size_t k = 0; k < counts.size(); ++k) {
      row.wrong += WrongFractions(svd, values(counts[k]), kFractions[k]);
      row.compared += static_cast<int64_t>(svd.positions().size());
    }
  }
  return row;
}

// What is asked at L = 512, 1024, 2048.
constexpr int64_t kLengths[] = {512, 1024, 2048};
constexpr double kEntropyAsked[] = {70, 140, 240};
constexpr double kRelativeAsked[] = {55, 95, 140};
constexpr double kWorstAsked[] = {20, 75, 110};

void AddLimits(const std::string& name, size_t index, const Row& row, Limits& limits) {
  const std::string at = fmt::format(", {}, L={}", name, kLengths[index]);
  const bool usual = name == kReal || name == "attention_g1";
  if (usual) {
    limits.AtLeast("entropy against SVD" + at, kEntropyAsked[index], row.svd / row.entropy, "x");
  }
  if (usual || name == "attention_g8") {
    limits.AtLeast("relative against SVD" + at, (usual ? kRelativeAsked : kWorstAsked)[index],
                   row.svd / row.SlowestRelative(), "x");
  }
}

}  // namespace

void RunDenseMeasures(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "dense operators: entropy, and relative tolerances of 0.1, 0.01 and 0.001, ms, every "
      "position\n"
      "of one head, one thread, the whole engine; SVD is extrapolated; the second ratio and the\n"
      "route are those of the slowest relative tolerance\n"
      "{:<16} {:>5} {:>8} {:>6} {:>6} {:>8} {:>8} {:>8} {:>6} {:>5}/{:<4} {}\n",
      "operator", "L", "entropy", "ratio", "error", "0.1", "0.01", "0.001", "ratio", "wrong", "of",
      "route");
  std::vector<std::string> names;
  for (const testing::TestOperator& op : testing::RealisticOperators()) names.push_back(op.name);
  if (settings.demo_model != nullptr) names.push_back(kReal);
  int64_t wrong = 0;
  int64_t compared = 0;
  for (size_t index = 0; index < std::size(kLengths); ++index) {
    const int64_t length = kLengths[index];
    if (!settings.Has(length)) continue;
    double largest_error = 0;
    for (const std::string& name : names) {
      std::vector<double> matrix;
      OperatorCase contested;
      if (name == kReal) {
        contested = ValueOrExit(settings.demo_model->Heads(length));
      } else {
        matrix = testing::MakeTestOperator(name, length);
        contested.op = DenseFromMatrix(matrix, length, 1);
      }
      const Row row = RunContest(contested, settings.quick || length > 1024 ? 12 : 24);
      std::cout << fmt::format(
                       "{:<16} {:>5} {:>8.2f} {:>5.0f}x {:>6.0e} {:>8.2f} {:>8.2f} {:>8.2f} "
                       "{:>5.0f}x {:>5}/{:<4} {}\n",
                       name, length, row.entropy * 1e3, row.svd / row.entropy, row.error,
                       row.relative[0] * 1e3, row.relative[1] * 1e3, row.relative[2] * 1e3,
                       row.svd / row.SlowestRelative(), row.wrong, row.compared, row.route)
                << std::flush;
      AddLimits(name, index, row, limits);
      largest_error = std::max(largest_error, row.error);
      wrong += row.wrong;
      compared += row.compared;
    }
    limits.AtMost(fmt::format("entropy, largest relative error, L={}", length), 1e-4, largest_error,
                  "");
  }
  limits.AtMost(fmt::format("relative tolerances, wrong counts of {}", compared), 0,
                static_cast<double>(wrong), "");
}

}  // namespace ess::benchmarks
