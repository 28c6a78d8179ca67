#include "server/base/worker_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ess::testing::IsOk;
using ess::testing::StatusIs;

TEST(WorkerPoolTest, CallsTheBodyOnceForEachIndex) {
  for (int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    std::vector<std::atomic<int>> calls(1000);

    const auto body = [&](int64_t index, int thread) {
      ASSERT_LT(thread, threads);
      calls[index].fetch_add(1);
    };
    ASSERT_THAT(pool.ParallelFor(1000, body, CancellationToken()), IsOk());

    for (const auto& count : calls) ASSERT_EQ(count.load(), 1);
  }
}

TEST(WorkerPoolTest, ReturnsAtOnceFromAnEmptyLoop) {
  WorkerPool pool(3);
  EXPECT_THAT(pool.ParallelFor(
                  0, [](int64_t, int) { FAIL(); }, CancellationToken()),
              IsOk());
}

TEST(WorkerPoolTest, RunsManyShortLoopsOneAfterTheOther) {
  WorkerPool pool(3);
  std::atomic<int64_t> sum{0};

  for (int loop = 0; loop < 2000; ++loop) {
    const auto body = [&](int64_t index, int) { sum += index; };
    ASSERT_THAT(pool.ParallelFor(3, body, CancellationToken()), IsOk());
  }

  EXPECT_EQ(sum.load(), 2000 * 3);
}

TEST(WorkerPoolTest, GivesEachThreadItsOwnScratch) {
  WorkerPool pool(4);
  std::vector<int64_t> per_thread(4, 0);

  const auto body = [&](int64_t, int thread) { ++per_thread[thread]; };
  ASSERT_THAT(pool.ParallelFor(10000, body, CancellationToken()), IsOk());

  int64_t total = 0;
  for (int64_t count : per_thread) total += count;
  EXPECT_EQ(total, 10000);
}

TEST(WorkerPoolTest, ACallerThatWaitsForAnotherLoopCanBeCancelled) {
  WorkerPool pool(2);
  absl::Notification started, release;
  std::thread other([&] {
    const auto body = [&](int64_t index, int) {
      if (index > 0) return;
      started.Notify();
      release.WaitForNotification();
    };
    EXPECT_THAT(pool.ParallelFor(1, body, CancellationToken()), IsOk());
  });
  started.WaitForNotification();
  CancellationToken token;
  token.Cancel();

  EXPECT_THAT(pool.ParallelFor(
                  1, [](int64_t, int) { FAIL(); }, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  release.Notify();
  other.join();
}

TEST(WorkerPoolTest, RunsTheLoopsOfSeveralCallers) {
  WorkerPool pool(2);
  std::atomic<int64_t> calls{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 200; ++loop) {
        EXPECT_THAT(pool.ParallelFor(
                        5, [&](int64_t, int) { ++calls; }, CancellationToken()),
                    IsOk());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();

  EXPECT_EQ(calls.load(), 3 * 200 * 5);
}

TEST(WorkerPoolTest, LoopsOfAPoolOfOneThreadRunBesideEachOther) {
  WorkerPool pool(1);
  absl::Notification here[2];
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 2; ++caller) {
    callers.emplace_back([&, caller] {
      // Each waits for the other: one after the other they would never end.
      const auto body = [&](int64_t, int) {
        here[caller].Notify();
        here[1 - caller].WaitForNotification();
      };
      EXPECT_THAT(pool.ParallelFor(1, body, CancellationToken()), IsOk());
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace ess
