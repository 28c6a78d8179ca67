#include "server/base/worker_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace ess {
namespace {

TEST(WorkerPoolTest, CallsTheBodyOnceForEachIndex) {
  for (int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    std::vector<std::atomic<int>> calls(1000);

    pool.ParallelFor(1000, [&](int64_t index, int thread) {
      ASSERT_LT(thread, threads);
      calls[index].fetch_add(1);
    });

    for (const auto& count : calls) ASSERT_EQ(count.load(), 1);
  }
}

TEST(WorkerPoolTest, ReturnsAtOnceFromAnEmptyLoop) {
  WorkerPool pool(3);
  pool.ParallelFor(0, [](int64_t, int) { FAIL(); });
}

TEST(WorkerPoolTest, RunsManyShortLoopsOneAfterTheOther) {
  WorkerPool pool(3);
  std::atomic<int64_t> sum{0};

  for (int loop = 0; loop < 2000; ++loop) {
    pool.ParallelFor(3, [&](int64_t index, int) { sum += index; });
  }

  EXPECT_EQ(sum.load(), 2000 * 3);
}

TEST(WorkerPoolTest, GivesEachThreadItsOwnScratch) {
  WorkerPool pool(4);
  std::vector<int64_t> per_thread(4, 0);

  pool.ParallelFor(10000, [&](int64_t, int thread) { ++per_thread[thread]; });

  int64_t total = 0;
  for (int64_t count : per_thread) total += count;
  EXPECT_EQ(total, 10000);
}

}  // namespace
}  // namespace ess
