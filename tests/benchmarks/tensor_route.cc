#include "tests/benchmarks/tensor_route.h"

#include <ATen/Parallel.h>

#include <iostream>
#include <vector>

#include "fmt/format.h"
#include "tests/benchmarks/engine_run.h"
#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

constexpr int64_t kHeads = 32;
constexpr int64_t kBatchBytes = int64_t{64} << 20;

}  // namespace

void RunTensorRoute(const Settings& settings, Limits& limits) {
  std::cout << fmt::format(
      "batched tensors on the CPU against the host's tree: {} heads of random attention, tolerance "
      "{},\nthe whole engine, batches of {} MiB; differ: counts of the two\n"
      "{:>5} {:>8} {:>9} {:>10} {:>7} {:>7}\n",
      kHeads, kTolerance, kBatchBytes >> 20, "L", "threads", "host ms", "tensor ms", "ratio",
      "differ");
  const std::vector<Measure> measures = Tolerances({kTolerance});
  const int threads_before = at::get_num_threads();
  for (const int64_t length : {512, 1024}) {
    if (settings.quick != (length == 512)) continue;
    const std::vector<double> matrix = testing::MakeTestOperator("attention_g1", length);
    const auto op = DenseFromMatrix(matrix, length, kHeads);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      EngineRun host(threads);
      EngineRun tensor(threads, {.tensor_bytes = kBatchBytes, .tensors_on_cpu = true});
      OperatorEss expected;
      OperatorEss answers;
      double host_seconds = kNotYet;
      double tensor_seconds = kNotYet;
      for (int turn = 0; turn < 2; ++turn) {
        KeepBest(host_seconds, [&] { expected = host(*op, kHeads, measures); });
        KeepBest(tensor_seconds, [&] { answers = tensor(*op, kHeads, measures); });
      }
      int64_t different = 0;
      for (size_t k = 0; k < expected.values[0].size(); ++k) {
        different += expected.values[0][k] != answers.values[0][k];
      }
      const double ratio = tensor_seconds / host_seconds;
      std::cout << fmt::format("{:>5} {:>8} {:>9.1f} {:>10.1f} {:>6.2f}x {:>7}\n", length, threads,
                               host_seconds * 1e3, tensor_seconds * 1e3, ratio, different)
                << std::flush;
      if (length == 1024) {
        limits.AtMost(
            fmt::format("batched tensors on {} thread(s) against the host, L=1024", threads), 6,
            ratio, "x");
      }
    }
  }
  at::set_num_threads(threads_before);
}

}  // namespace ess::benchmarks
