// The tensor route on the CPU against the host's tree, both with the same threads, in one run. It
// is meant for accelerators; this shows that its arithmetic is not wasteful.
//
//   tensor_benchmark [LENGTH HEADS THREADS]
#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/operators/dense_operator.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::ValueOrExit;

constexpr Measure kMeasure{.kind = Measure::Kind::kTolerance, .value = 1e-2};

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// The realistic operators in turn.
at::Tensor Maps(int64_t heads, int64_t length) {
  std::vector<at::Tensor> kinds;
  for (const testing::TestOperator& op : testing::RealisticOperators()) {
    kinds.push_back(at::tensor(op.make(length), at::kDouble).view({length, length}));
  }
  std::vector<at::Tensor> maps;
  for (int64_t head = 0; head < heads; ++head) maps.push_back(kinds[head % kinds.size()]);
  return at::stack(maps);
}

void PrintRow(int64_t length, int64_t heads, int threads) {
  const operators::DenseOperator op(Maps(heads, length), operators::StateSize::Growing());
  WorkerPool pool(threads);
  const auto compute = [&](bool tensors, OperatorEss& ess) {
    const EssEngine engine(pool, {.tensors_on_cpu = tensors});
    ess = ValueOrExit(
        engine.Compute(op, Range(heads), Range(length), {&kMeasure, 1}, {}, CancellationToken()));
  };
  OperatorEss by_host;
  OperatorEss by_tensors;
  const double host = BestSeconds([&] { compute(false, by_host); });
  const double tensor = BestSeconds([&] { compute(true, by_tensors); });
  int64_t different = 0;
  for (size_t x = 0; x < by_host.values[0].size(); ++x) {
    different += by_host.values[0][x] != by_tensors.values[0][x];
  }
  std::printf("%6ld %6ld %8d %12.1f %14.1f %7.2f %7ld\n", static_cast<long>(length),
              static_cast<long>(heads), threads, host * 1e3, tensor * 1e3, tensor / host,
              static_cast<long>(different));
  std::fflush(stdout);
}

}  // namespace
}  // namespace ess

int main(int argc, char** argv) {
  const auto argument = [&](int index, int64_t otherwise) {
    return argc > index ? std::atoll(argv[index]) : otherwise;
  };
  std::printf("counts at one tolerance and the noise floor, all heads, from the matrices\n");
  std::printf("%6s %6s %8s %12s %14s %7s %7s\n", "L", "heads", "threads", "host ms", "tensor ms",
              "ratio", "differ");
  if (argc > 1) {
    ess::PrintRow(argument(1, 1024), argument(2, 32), static_cast<int>(argument(3, 1)));
    return 0;
  }
  for (const int64_t length : {512, 1024}) {
    for (const int threads : {1, 2}) ess::PrintRow(length, 32, threads);
  }
  return 0;
}
