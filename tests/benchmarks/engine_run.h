// The whole engine on one operator, as the server runs it: routes, noise floor and all.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"
#include "server/operators/sequence_operator.h"

namespace ess::benchmarks {

std::vector<Measure> Measures(std::initializer_list<std::string_view> texts);
std::vector<Measure> Tolerances(std::initializer_list<double> values);

class EngineRun {
 public:
  explicit EngineRun(int threads, EssEngine::Options options = {});

  // Every position of heads 0 .. `heads` - 1. Nothing is known from earlier calls: an operator that
  // does not depend on its input is computed again.
  OperatorEss operator()(const operators::SequenceOperator& op, int64_t heads,
                         const std::vector<Measure>& measures);

 private:
  WorkerPool pool_;
  const EssEngine::Options options_;
};

}  // namespace ess::benchmarks
