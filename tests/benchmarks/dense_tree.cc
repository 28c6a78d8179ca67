#include "tests/benchmarks/dense_tree.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "server/ess/ess_engine.h"
#include "server/linalg/inertia_tree.h"
#include "server/operators/dense_operator.h"
#include "tests/benchmarks/memory.h"
#include "tests/benchmarks/prototype_tree.h"
#include "tests/benchmarks/svd_rival.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

constexpr double kOperations =
    0.54;  // Times L^3: what the tree of one tolerance cannot do without.
constexpr int64_t kThreadHeads = 32;

struct Asked {
  int64_t length;
  double svd_ratio;
  double peak_share;
};
constexpr Asked kAsked[] = {{512, 350, 70}, {1024, 600, 75}, {2048, 1000, 75}};

int64_t SvdPositionCount(int64_t length, const Settings& settings) {
  if (length <= 256) return length;
  if (length <= 1024) return settings.quick ? 16 : 32;
  return settings.quick ? 4 : (length == 4096 ? 32 : 16);
}

// The whole engine on `heads` copies of one matrix.
class EngineRun {
 public:
  EngineRun(const std::vector<double>& matrix, int64_t length, int64_t heads, int threads)
      : op_(at::from_blob(const_cast<double*>(matrix.data()), {1, length, length}, at::kDouble)
                .expand({heads, length, length}),
            operators::StateSize::Growing()),
        pool_(threads),
        engine_(pool_),
        heads_(heads),
        positions_(length) {
    std::iota(heads_.begin(), heads_.end(), 0);
    std::iota(positions_.begin(), positions_.end(), 0);
  }

  void operator()() {
    const Measure measure{.kind = Measure::Kind::kTolerance, .value = kTolerance};
    ValueOrExit(engine_.Compute(op_, heads_, positions_, {&measure, 1}, {}, CancellationToken()));
  }

 private:
  const operators::DenseOperator op_;
  WorkerPool pool_;
  const EssEngine engine_;
  std::vector<int64_t> heads_;
  std::vector<int64_t> positions_;
};

struct TreeRow {
  double tree_seconds = 1e300;  // Load and one tolerance.
  double next_seconds = 1e300;  // Each further tolerance.
  double engine_seconds = 1e300;
  double prototype_seconds = 1e300;
  linalg::BlockCounts counts;
};

// The contestants take turns, so that a busy machine slows all of them.
TreeRow TimeTree(const std::vector<double>& matrix, int64_t length) {
  const CancellationToken never;
  TreeRow row;
  linalg::InertiaTree tree;
  EngineRun engine(matrix, length, 1, 1);
  std::unique_ptr<PrototypeTree> prototype;
  if (WhyNoPrototype().empty()) prototype = MakePrototypeTree(matrix, length);
  const auto keep_best = [](double& best, absl::FunctionRef<void()> work) {
    best = std::min(best, BestSeconds(work, 0.2));
  };
  for (int turn = 0; turn < 3; ++turn) {
    const auto count = [&] { row.counts = ValueOrExit(tree.CountAbove(kTolerance, 1, never)); };
    keep_best(row.tree_seconds, [&] {
      ExitUnlessOk(tree.Load(matrix, length, never));
      count();
    });
    keep_best(row.next_seconds, count);
    if (prototype != nullptr) {
      keep_best(row.prototype_seconds, [&] { prototype->CountAbove(kTolerance * (1 + kTie)); });
    }
    keep_best(row.engine_seconds, [&] { engine(); });
  }
  return row;
}

int64_t WrongCounts(const SvdRun& svd, const linalg::BlockCounts& counts) {
  int64_t wrong = 0;
  for (size_t k = 0; k < svd.positions.size(); ++k) {
    wrong += counts.counts[svd.positions[k]] !=
             std::count_if(svd.sigma[k].begin(), svd.sigma[k].end(),
                           [](double sigma) { return sigma > kTolerance * (1 + kTie); });
  }
  return wrong;
}

void AddLimits(int64_t length, const TreeRow& row, double svd_seconds, double peak_share,
               Limits& limits) {
  for (const Asked& asked : kAsked) {
    if (asked.length != length) continue;
    const std::string at = fmt::format(", L={}", length);
    limits.AtLeast("dense, engine against SVD at every position" + at, asked.svd_ratio,
                   svd_seconds / row.engine_seconds, "x");
    limits.AtLeast("dense tree, share of the FMA peak" + at, asked.peak_share, 100 * peak_share,
                   "%");
    const std::string race = "dense tree, speed against the prototype" + at;
    if (WhyNoPrototype().empty()) {
      limits.AtLeast(race, 0.9, row.prototype_seconds / row.tree_seconds, "x");
    } else {
      limits.NotMeasured(race, "no prototype");
    }
    limits.AtMost("each further tolerance, share of the first" + at, 0.65,
                  row.next_seconds / row.tree_seconds, "x");
  }
}

void MeasureMemory(int64_t length, const std::vector<double>& matrix, Limits& limits) {
  const double bytes = PeakBytes([&] { EngineRun(matrix, length, 1, 1)(); });
  const double squares = bytes / static_cast<double>(8 * length * length);
  limits.AtMost(fmt::format("memory of a dense operator in flight, L={}", length), 4, squares,
                " L^2");
}

void MeasureThreads(const Settings& settings, Limits& limits) {
  const int64_t length = settings.quick ? 512 : 1024;
  const std::vector<double> matrix = testing::MakeTestOperator("attention_g1", length);
  double seconds[2] = {1e300, 1e300};
  EngineRun one(matrix, length, kThreadHeads, 1);
  EngineRun two(matrix, length, kThreadHeads, 2);
  for (int turn = 0; turn < 2; ++turn) {
    seconds[0] = std::min(seconds[0], BestSeconds([&] { one(); }));
    seconds[1] = std::min(seconds[1], BestSeconds([&] { two(); }));
  }
  limits.AtLeast(fmt::format("two threads against one, {} heads, L={}", kThreadHeads, length), 1.8,
                 seconds[0] / seconds[1], "x");
}

}  // namespace

void RunDenseTree(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "dense tree: random attention, tolerance {}, every position, one thread\n"
      "tree: one tolerance, its operations counted as {} L^3; next: each further tolerance;\n"
      "engine: one head as the server runs it, noise floor included, the ratio is its\n"
      "* extrapolated from evenly spaced positions, where all counts are compared\n",
      kTolerance, kOperations);
  if (!WhyNoPrototype().empty()) {
    std::cout << fmt::format("no race against the prototype: {}\n", WhyNoPrototype());
  }
  std::cout << fmt::format("{:>5} {:>9} {:>6} {:>5} {:>9} {:>10} {:>6} {:>10} {:>10} {:>7} {:>9}\n",
                           "L", "tree ms", "GF/s", "peak", "next ms", "prototype", "race",
                           "engine ms", "SVD s", "ratio", "wrong/of");
  WorkerPool pool(1);
  double previous_seconds = 0;
  for (const int64_t length : {256, 512, 1024, 2048, 4096}) {
    if (settings.quick && length > 2048) break;
    const std::vector<double> matrix = testing::MakeTestOperator("attention_g1", length);
    const TreeRow row = TimeTree(matrix, length);
    const SvdRun svd =
        RunSvd(matrix, length, EvenPositions(length, SvdPositionCount(length, settings)), pool);
    const double rate =
        kOperations * static_cast<double>(length * length * length) / row.tree_seconds / 1e9;
    const int64_t wrong = WrongCounts(svd, row.counts);
    const bool raced = WhyNoPrototype().empty();
    std::cout << fmt::format(
                     "{:>5} {:>9.3f} {:>6.1f} {:>4.0f}% {:>9.3f} {:>10} {:>6} {:>10.3f} "
                     "{:>9.3f}{} {:>6.0f}x {:>4}/{}\n",
                     length, row.tree_seconds * 1e3, rate, 100 * rate / settings.fma_peak,
                     row.next_seconds * 1e3,
                     raced ? fmt::format("{:.3f}", row.prototype_seconds * 1e3) : "-",
                     raced ? fmt::format("{:.2f}x", row.prototype_seconds / row.tree_seconds) : "-",
                     row.engine_seconds * 1e3, svd.seconds, svd.extrapolated ? '*' : ' ',
                     svd.seconds / row.engine_seconds, wrong, svd.positions.size())
              << std::flush;
    AddLimits(length, row, svd.seconds, rate / settings.fma_peak, limits);
    if (length == 4096) {
      limits.AtMost("dense tree, L=4096 against L=2048", 10, row.tree_seconds / previous_seconds,
                    "x");
      limits.AtMost(fmt::format("wrong counts at {} positions, L=4096", svd.positions.size()), 0,
                    static_cast<double>(wrong), "");
    }
    if (length == 2048) MeasureMemory(length, matrix, limits);
    previous_seconds = row.tree_seconds;
  }
  MeasureThreads(settings, limits);
}

}  // namespace ess::benchmarks
