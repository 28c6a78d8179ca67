#include "tests/benchmarks/native_routes.h"

#include <iostream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

struct Contest {
  std::string family;
  int64_t length;
  bool five;     // Five tolerances, else one.
  double asked;  // 0: for information.
};

struct Times {  // Seconds of one head or channel.
  double native = kNotYet;
  double form = kNotYet;
  double dense = kNotYet;
  int64_t different = 0;  // Counts of head 0, at 1e-3.
};

Times TimeRoutes(const Contest& contest) {
  const OperatorCase contested = MakeOperatorCase(contest.family, contest.length);
  const int64_t heads = contested.one_thread_heads;
  const std::vector<Measure> measures =
      contest.five ? Tolerances({1e-1, 1e-2, 1e-3, 1e-4, 1e-5}) : Tolerances({kTolerance});
  const size_t compared = contest.five ? 2 : 0;
  EngineRun engine(1);
  std::vector<double> matrix = DenseMatrix(*contested.op, 0);
  const auto formed = DenseFromMatrix(matrix, contest.length, 1);
  OperatorEss native;
  OperatorEss dense;
  Times times;
  for (int turn = 0; turn < 3; ++turn) {
    KeepBest(times.native, [&] { native = engine(*contested.op, heads, measures); });
    KeepBest(times.form, [&] { contested.op->DenseHead(0, matrix); });
    KeepBest(times.dense, [&] { dense = engine(*formed, 1, measures); });
  }
  times.native /= static_cast<double>(heads);
  for (int64_t i = 0; i < contest.length; ++i) {
    times.different += native.values[compared][i] != dense.values[compared][i];
  }
  return times;
}

}  // namespace

void RunNativeRoutes(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "routes of their own against forming T and the dense tree: every position, one thread, the\n"
      "whole engine either way, one head or channel; tree: against the dense tree alone, T being\n"
      "there; differ: counts at {} of the two\n"
      "{:<16} {:>5} {:>5} {:>10} {:>9} {:>9} {:>7} {:>7} {:>7}\n",
      kTolerance, "operator", "L", "taus", "native ms", "form ms", "dense ms", "ratio", "tree",
      "differ");
  for (const Contest& contest :
       {Contest{"GLA n=64", 1024, true, 5}, Contest{"GLA n=128", 1024, true, 0},
        Contest{"Mamba-2 n=128", 1024, true, 0}, Contest{"DeltaNet n=64", 1024, true, 0},
        Contest{"S6 n=16", 1024, false, 50}, Contest{"GLA n=64", 2048, true, 0},
        Contest{"GLA n=128", 2048, true, 0}, Contest{"Mamba-2 n=128", 2048, true, 6},
        Contest{"DeltaNet n=64", 2048, true, 0}}) {
    if (!settings.Has(contest.length)) continue;
    const Times times = TimeRoutes(contest);
    const double ratio = (times.form + times.dense) / times.native;
    std::cout << fmt::format(
                     "{:<16} {:>5} {:>5} {:>10.3f} {:>9.3f} {:>9.3f} {:>6.1f}x {:>6.1f}x {:>7}\n",
                     contest.family, contest.length, contest.five ? 5 : 1, times.native * 1e3,
                     times.form * 1e3, times.dense * 1e3, ratio, times.dense / times.native,
                     times.different)
              << std::flush;
    if (contest.asked > 0) {
      limits.AtLeast(fmt::format("{}, {} tolerance(s), against T and the dense tree, L={}",
                                 contest.family, contest.five ? 5 : 1, contest.length),
                     contest.asked, ratio, "x");
    }
  }
}

}  // namespace ess::benchmarks
