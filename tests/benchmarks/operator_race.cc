#include "tests/benchmarks/operator_race.h"

#include <algorithm>
#include <span>
#include <vector>

#include "server/ess/reference_ess.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/gram_rival.h"
#include "tests/benchmarks/memory.h"
#include "tests/benchmarks/svd_rival.h"

namespace ess::benchmarks {
namespace {

constexpr double kFive[] = {1e-1, 1e-2, 1e-3, 1e-4, 1e-5};

// Timed positions of each compared head.
int64_t PositionCount(const OperatorCase& contested, const Settings& settings) {
  const int64_t length = contested.op->length();
  int64_t count = 24;
  if (length > 1024 && !contested.thorough) count = length > 2048 ? 9 : 15;
  if (settings.quick) count /= 2;
  return std::max<int64_t>(count / contested.compared_heads, 1);
}

// One compared head with its rivals.
struct HeadRace {
  HeadRace(std::vector<double> dense, int64_t length, std::vector<int64_t> positions)
      : matrix(std::move(dense)),
        svd(matrix, length, positions),
        gram(matrix, length, positions, kTolerance) {}

  std::vector<double> matrix;
  SvdRival svd;
  GramRival gram;
};

std::span<const float> HeadValues(const std::vector<float>& values, int64_t head, int64_t length) {
  return std::span(values).subspan(head * length, length);
}

int64_t GramWrong(const HeadRace& race) {
  int64_t wrong = 0;
  for (size_t k = 0; k < race.gram.counts().size(); ++k) {
    wrong += race.gram.counts()[k] != CountAbove(race.svd.sigma()[k], kTolerance);
  }
  return wrong;
}

}  // namespace

RaceResult RaceOperator(const OperatorCase& contested, const Settings& settings) {
  const operators::SequenceOperator& op = *contested.op;
  const int64_t length = op.length();
  const int64_t heads = contested.one_thread_heads;
  const int64_t compared = contested.compared_heads;
  const std::vector<int64_t> positions = EvenPositions(length, PositionCount(contested, settings));
  std::vector<std::unique_ptr<HeadRace>> races;
  for (int64_t head = 0; head < compared; ++head) {
    races.push_back(std::make_unique<HeadRace>(DenseMatrix(op, head), length, positions));
  }
  const std::vector<Measure> one = Measures({"tolerance:1e-3"});
  const std::vector<Measure> five = Tolerances({1e-1, 1e-2, 1e-3, 1e-4, 1e-5});
  const std::vector<Measure> entropy = Measures({"entropy"});
  EngineRun one_thread(1);
  EngineRun two_threads(2);
  WorkerPool alone(1);
  RaceResult result;
  OperatorEss counts;
  OperatorEss entropies;
  const double budget = 0.1;
  for (int turn = 0; turn < Turns(length); ++turn) {
    KeepBest(
        result.one_thread, [&] { one_thread(op, heads, one); }, budget);
    KeepBest(
        result.two_threads, [&] { two_threads(op, contested.two_thread_heads, one); }, budget);
    KeepBest(
        result.five, [&] { counts = one_thread(op, heads, five); }, budget);
    KeepBest(
        result.entropy, [&] { entropies = one_thread(op, heads, entropy); }, budget);
    for (const std::unique_ptr<HeadRace>& race : races) {
      race->svd.Run(alone);
      race->gram.Run();
    }
  }
  result.one_thread /= static_cast<double>(heads);
  result.five /= static_cast<double>(heads);
  result.entropy /= static_cast<double>(heads);
  result.two_threads /= static_cast<double>(contested.two_thread_heads);
  result.route = counts.routes.front();
  for (int64_t head = 0; head < compared; ++head) {
    const HeadRace& race = *races[head];
    result.svd += race.svd.Seconds() / static_cast<double>(compared);
    result.gram += race.gram.Seconds() / static_cast<double>(compared);
    result.extrapolated |= race.svd.extrapolated();
    for (size_t k = 0; k < std::size(kFive); ++k) {
      result.wrong += WrongCounts(race.svd, HeadValues(counts.values[k], head, length), kFive[k]);
      result.compared += static_cast<int64_t>(race.svd.positions().size());
    }
    result.gram_wrong += GramWrong(race);
    result.entropy_error =
        std::max(result.entropy_error,
                 LargestEntropyError(race.svd, HeadValues(entropies.values[0], head, length)));
  }
  races.clear();
  result.peak_bytes = PeakBytes([&] {
    EngineRun(1)(op, heads, Measures({"tolerance:1e-3", "entropy"}));
  });
  return result;
}

}  // namespace ess::benchmarks
