#include "server/admission/work_queue.h"

#include <atomic>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess::admission {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

TEST(WorkQueueTest, RunsWorkInTheOrderOfSubmission) {
  WorkQueue queue({.threads = 1, .max_queued = 10, .limit_name = "limit"});
  std::string order;

  for (char name : {'a', 'b', 'c'}) {
    ASSERT_THAT(queue.Submit([&order, name] { order += name; }), IsOk());
  }

  EXPECT_TRUE(queue.Drain(absl::Seconds(30)));
  EXPECT_EQ(order, "abc");
}

TEST(WorkQueueTest, RefusesAtOnceWhenItIsFullAndNamesTheLimit) {
  absl::Notification started, finish;
  WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "max_queued_profiles"});
  ASSERT_THAT(queue.Submit([&] {
    started.Notify();
    finish.WaitForNotification();
  }),
              IsOk());
  started.WaitForNotification();
  ASSERT_THAT(queue.Submit([] {}), IsOk());

  const absl::Status refused = queue.Submit([] {});

  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("the limit is 1 (max_queued_profiles)")));
  finish.Notify();
}

TEST(WorkQueueTest, WorkThatGoesOnElsewhereKeepsItsPlaceAndIsNotRefusedInTheEnd) {
  WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "limit"});
  absl::Notification begun, ended;
  WorkQueue::Place held;
  ASSERT_THAT(queue.SubmitWithPlace([&](WorkQueue::Place place) {
    held = std::move(place);
    begun.Notify();
  }),
              IsOk());
  begun.WaitForNotification();
  EXPECT_THAT(queue.Submit([] {}), StatusIs(absl::StatusCode::kResourceExhausted,
                                            HasSubstr("1 calls are waiting; the limit is 1")));

  EXPECT_TRUE(queue.Drain(absl::Seconds(30)));
  queue.Continue([&] { ended.Notify(); });

  ended.WaitForNotification();
}

TEST(WorkQueueTest, APlaceThatIsGivenBackIsThereForOthers) {
  WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "limit"});
  for (int i = 0; i < 3; ++i) {
    absl::Notification over;
    ASSERT_THAT(queue.SubmitWithPlace([&](WorkQueue::Place place) {
      place.reset();
      over.Notify();
    }),
                IsOk());
    over.WaitForNotification();
  }
}

TEST(WorkQueueTest, APlaceMayOutliveItsQueue) {
  WorkQueue::Place held;
  {
    WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "limit"});
    ASSERT_THAT(queue.SubmitWithPlace([&](WorkQueue::Place place) { held = std::move(place); }),
                IsOk());
  }
  held.reset();
}

TEST(WorkQueueTest, RefusesAfterADrainBegan) {
  WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "limit"});

  EXPECT_TRUE(queue.Drain(absl::ZeroDuration()));

  EXPECT_THAT(queue.Submit([] {}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
}

TEST(WorkQueueTest, SaysWhenADrainRanOutOfTime) {
  absl::Notification started, finish;
  WorkQueue queue({.threads = 1, .max_queued = 1, .limit_name = "limit"});
  ASSERT_THAT(queue.Submit([&] {
    started.Notify();
    finish.WaitForNotification();
  }),
              IsOk());
  started.WaitForNotification();

  EXPECT_FALSE(queue.Drain(absl::Milliseconds(1)));

  finish.Notify();
  EXPECT_TRUE(queue.Drain(absl::Seconds(30)));
}

TEST(WorkQueueTest, RunsAsManyPiecesAtOnceAsItHasThreads) {
  WorkQueue queue({.threads = 2, .max_queued = 10, .limit_name = "limit"});
  absl::Notification first, second;

  // Each waits for the other: on one thread this would never end.
  ASSERT_THAT(queue.Submit([&] {
    first.Notify();
    second.WaitForNotification();
  }),
              IsOk());
  ASSERT_THAT(queue.Submit([&] {
    second.Notify();
    first.WaitForNotification();
  }),
              IsOk());

  EXPECT_TRUE(queue.Drain(absl::Seconds(30)));
}

}  // namespace
}  // namespace ess::admission
