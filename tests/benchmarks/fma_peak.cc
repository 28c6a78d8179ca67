// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "tests/benchmarks/fma_peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/benchmarks/fma_peak.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Ten independent chains hide the latency. Returns the number of operations; the sum goes to
// `result` so that nothing is optimized away.
int64_t RunMultiplyAdds(int64_t rounds, double* result) {
  constexpr int kChains = 10;
  const hn::CappedTag<double, 8> d;
  const auto factor = hn::Set(d, 0.999);
  const auto term = hn::Set(d, 0.001);
  hn::Vec<decltype(d)> chain[kChains];
  for (int c = 0; c < kChains; ++c) chain[c] = hn::Set(d, static_cast<double>(c));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (int c = 0; c < kChains; ++c) chain[c] = hn::MulAdd(chain[c], factor, term);
  }
  auto sum = hn::Zero(d);
  for (int c = 0; c < kChains; ++c) sum = hn::Add(sum, chain[c]);
  *result = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2 * kChains * rounds * static_cast<int64_t>(hn::Lanes(d));
}

}  // namespace ess::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess {
namespace {
HWY_EXPORT(RunMultiplyAdds);
}  // namespace

double MeasureFmaPeak(WorkerPool& pool) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  std::vector<int64_t> operations(pool.threads());
  std::vector<double> results(pool.threads());
  const auto run_thread = [&](int64_t index, int) {
    operations[index] = HWY_DYNAMIC_DISPATCH(RunMultiplyAdds)(2'000'000, &results[index]);
  };
  for (int run = 0; run < 25; ++run) {
    const Clock::time_point start = Clock::now();
    const absl::Status status = pool.ParallelFor(pool.threads(), run_thread, CancellationToken());
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (!status.ok()) continue;
    const int64_t sum = std::accumulate(operations.begin(), operations.end(), int64_t{0});
    best = std::max(best, static_cast<double>(sum) / seconds / 1e9);
  }
  return best;
}

}  // namespace ess
#endif  // HWY_ONCE
