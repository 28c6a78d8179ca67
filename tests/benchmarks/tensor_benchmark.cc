// The tensor route on the CPU against the host's tree, both with the same threads, in one run. It
// is meant for accelerators; this shows that its arithmetic is not wasteful.
//
//   tensor_benchmark [LENGTH HEADS THREADS BUDGET_MIB]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/base/worker_pool.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/serial_torch.h"
#include "server/linalg/tensor_spectra.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::ValueOrExit;

constexpr double kTolerance = 1e-2;

// The realistic operators in turn, divided by 16: the tree wants entries of at most 1.
at::Tensor Maps(int64_t heads, int64_t length) {
  const std::vector<testing::TestOperator> ops = testing::RealisticOperators();
  std::vector<at::Tensor> kinds;
  for (const testing::TestOperator& op : ops) {
    kinds.push_back(at::tensor(op.make(length), at::kDouble).view({length, length}).div(16));
  }
  std::vector<at::Tensor> maps;
  for (int64_t head = 0; head < heads; ++head) maps.push_back(kinds[head % kinds.size()]);
  return at::stack(maps);
}

void PrintRow(int64_t length, int64_t heads, int threads, int64_t budget_mib) {
  const CancellationToken never;
  at::set_num_threads(threads);
  const at::Tensor maps = Maps(heads, length);
  WorkerPool pool(threads);
  std::vector<InertiaTree> trees(threads);
  std::vector<std::vector<int32_t>> expected(heads);
  const double host = BestSeconds([&] {
    const absl::Status status = pool.ParallelFor(
        heads,
        [&](int64_t head, int thread) {
          const at::Tensor map = maps[head];
          const std::span<const double> entries(map.const_data_ptr<double>(), map.numel());
          if (!trees[thread].Load(entries, length, never).ok()) std::exit(1);
          expected[head] = ValueOrExit(trees[thread].CountAbove(kTolerance, 1, never)).counts;
        },
        never);
    if (!status.ok()) std::exit(1);
  });

  const TensorSpectraRequest request{.tolerances = {std::vector<double>(heads, kTolerance)},
                                     .fractions = {}};
  int64_t wrong = 0;
  const double tensor = BestSeconds([&] {
    TensorSpectra spectra = ValueOrExit(TensorSpectra::Create(maps, budget_mib << 20, never));
    const std::vector<Spectrum> result = ValueOrExit(spectra.Compute(request, never));
    wrong = 0;
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < length; ++i) {
        wrong += result[head].tolerance_counts[0].counts[i] != expected[head][i];
      }
    }
  });
  std::printf("%6ld %6ld %8d %11ld %12.1f %14.1f %7.2f %7ld\n", static_cast<long>(length),
              static_cast<long>(heads), threads, static_cast<long>(budget_mib), host * 1e3,
              tensor * 1e3, tensor / host, static_cast<long>(wrong));
  std::fflush(stdout);
}

}  // namespace
}  // namespace ess::linalg

int main(int argc, char** argv) {
  const auto argument = [&](int index, int64_t otherwise) {
    return argc > index ? std::atoll(argv[index]) : otherwise;
  };
  std::printf("counts at one tolerance, all heads; both prepare everything from the matrices\n");
  std::printf("%6s %6s %8s %11s %12s %14s %7s %7s\n", "L", "heads", "threads", "budget MiB",
              "host ms", "tensor ms", "ratio", "differ");
  if (argc > 1) {
    ess::linalg::PrintRow(argument(1, 1024), argument(2, 32), argument(3, 1), argument(4, 64));
    return 0;
  }
  for (const int64_t length : {512, 1024}) {
    for (const int threads : {1, 2}) ess::linalg::PrintRow(length, 32, threads, 64);
  }
  return 0;
}
