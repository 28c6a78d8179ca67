#include "tests/benchmarks/engine_run.h"

#include <numeric>

#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {

std::vector<Measure> Measures(std::initializer_list<std::string_view> texts) {
  std::vector<Measure> measures;
  for (const std::string_view text : texts) measures.push_back(ValueOrExit(ParseMeasure(text)));
  return measures;
}

std::vector<Measure> Tolerances(std::initializer_list<double> values) {
  std::vector<Measure> measures;
  for (const double value : values) {
    measures.push_back({.kind = Measure::Kind::kTolerance, .value = value});
  }
  return measures;
}

EngineRun::EngineRun(int threads, EssEngine::Options options) : pool_(threads), options_(options) {}

OperatorEss EngineRun::operator()(const operators::SequenceOperator& op, int64_t heads,
                                  const std::vector<Measure>& measures) {
  std::vector<int64_t> head_indices(heads);
  std::iota(head_indices.begin(), head_indices.end(), 0);
  std::vector<int64_t> positions(op.length());
  std::iota(positions.begin(), positions.end(), 0);
  const EssEngine engine(pool_, options_);
  return ValueOrExit(
      engine.Compute(op, head_indices, positions, measures, {}, CancellationToken()));
}

}  // namespace ess::benchmarks
