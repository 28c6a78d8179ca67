#include "server/jobs/job_feed.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace ess::jobs {
namespace {

TEST(JobFeedTest, TellsThoseWhoWatchTheJobAndNobodyElse) {
  JobFeed feed(absl::Milliseconds(1));
  absl::Notification told;
  std::atomic<int> others{0};
  feed.Add("a", [&] { told.Notify(); });
  feed.Add("b", [&] { ++others; });

  feed.OnProgress("a");

  EXPECT_TRUE(told.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_EQ(others, 0);
}

TEST(JobFeedTest, ManyChangesAreFewCalls) {
  std::atomic<int> calls{0};
  {
    JobFeed feed(absl::Hours(1));
    feed.Add("a", [&] { ++calls; });

    for (int i = 0; i < 100'000; ++i) feed.OnProgress("a");
  }

  EXPECT_LE(calls, 2);
}

TEST(JobFeedTest, AChangeOfStateDoesNotWaitForTheInterval) {
  JobFeed feed(absl::Hours(1));
  std::atomic<int> calls{0};
  feed.Add("a", [&] { ++calls; });
  feed.OnProgress("a");
  while (calls < 1) absl::SleepFor(absl::Milliseconds(1));

  feed.OnStateChange("a");

  while (calls < 2) absl::SleepFor(absl::Milliseconds(1));
}

TEST(JobFeedTest, WhoHasLeftIsNotTold) {
  JobFeed feed(absl::Milliseconds(1));
  std::atomic<int> calls{0};
  absl::Notification told;
  const int64_t left = feed.Add("a", [&] { ++calls; });
  feed.Add("a", [&] { told.Notify(); });

  feed.Remove(left);
  feed.OnStateChange("a");

  told.WaitForNotification();
  EXPECT_EQ(calls, 0);
}

TEST(JobFeedTest, ClosingTellsEverybody) {
  JobFeed feed(absl::Hours(1));
  absl::Notification told;
  feed.Add("a", [&] { told.Notify(); });

  feed.Close();

  told.WaitForNotification();
  EXPECT_TRUE(feed.closed());
}

}  // namespace
}  // namespace ess::jobs
