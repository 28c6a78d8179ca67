#include <string>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "server/admission/request_queue.h"
#include "tests/support/status_matchers.h"

namespace ess::admission {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(30);

// Work that is in the background and gives way once, and what runs beside it.
class YieldTest : public ::testing::Test {
 protected:
  YieldTest() {
    const auto id = queue_.Enter(
        {.model = "m", .caller = "jobs", .priority = Priority::kLow, .background = true},
        [](const absl::Status&) {});
    queue_.Start(*id, Weight::kLarge, [this](RequestQueue::Slot& slot) {
      begun_.Notify();
      go_.WaitForNotification();
      yielded_ = slot.Yield(longest_, token_);
      order_ += "job ";
      done_.Notify();
    });
    begun_.WaitForNotification();
  }

  void Add(const std::string& name, Priority priority, absl::Notification* wait = nullptr) {
    const auto id = queue_.Enter({.model = "m", .caller = name, .priority = priority},
                                 [](const absl::Status&) {});
    queue_.Start(*id, Weight::kLarge, [this, name, wait](RequestQueue::Slot&) {
      if (wait != nullptr) wait->WaitForNotification();
      order_ += name + " ";
    });
  }

  telemetry::Metrics metrics_;
  absl::Notification begun_, go_, done_;
  absl::Duration longest_ = kLong;
  CancellationToken token_;
  absl::Status yielded_;
  std::string order_;
  RequestQueue queue_{{}, metrics_};
};

TEST_F(YieldTest, AllRequestsOfNormalPriorityGoFirstAndThoseOfLowDoNot) {
  Add("low", Priority::kLow);
  Add("a", Priority::kNormal);
  Add("b", Priority::kNormal);

  go_.Notify();

  done_.WaitForNotification();
  EXPECT_TRUE(queue_.Drain(kLong));
  EXPECT_THAT(yielded_, IsOk());
  EXPECT_EQ(order_.substr(0, 4), "a b ");
  EXPECT_TRUE(order_ == "a b job low " || order_ == "a b low job ") << order_;
}

TEST_F(YieldTest, ARequestThatComesBackFromAsideGoesFirst) {
  absl::Notification aside, back;
  const auto id = queue_.Enter({.model = "m", .caller = "a"}, [](const absl::Status&) {});
  queue_.Start(*id, Weight::kLarge, [&](RequestQueue::Slot& slot) {
    const auto wait = [&] {
      aside.Notify();
      back.WaitForNotification();
      return absl::OkStatus();
    };
    EXPECT_THAT(slot.WaitAside(wait, CancellationToken()), IsOk());
    order_ += "a ";
  });
  const auto second =
      queue_.Enter({.model = "m", .caller = "jobs", .priority = Priority::kLow, .background = true},
                   [](const absl::Status&) {});
  absl::Notification holds_slot, yields;
  queue_.Start(*second, Weight::kLarge, [&](RequestQueue::Slot& slot) {
    holds_slot.Notify();
    yields.WaitForNotification();
    EXPECT_THAT(slot.Yield(kLong, CancellationToken()), IsOk());
    order_ += "second ";
  });
  go_.Notify();  // The first job makes room for "a", and goes on while that is aside.
  aside.WaitForNotification();
  done_.WaitForNotification();
  holds_slot.WaitForNotification();
  back.Notify();
  absl::SleepFor(absl::Milliseconds(50));  // It waits for the slot by now.

  yields.Notify();

  EXPECT_TRUE(queue_.Drain(kLong));
  EXPECT_EQ(order_, "job a second ");
}

TEST_F(YieldTest, NobodyWaitsAndNothingHappens) {
  go_.Notify();

  done_.WaitForNotification();
  EXPECT_THAT(yielded_, IsOk());
  EXPECT_TRUE(queue_.Drain(kLong));
}

TEST_F(YieldTest, ASlotThatDoesNotComeBackInTimeAbortsTheWork) {
  absl::Notification end;
  longest_ = absl::Milliseconds(60);
  Add("long", Priority::kNormal, &end);

  go_.Notify();

  done_.WaitForNotification();
  EXPECT_THAT(yielded_, StatusIs(absl::StatusCode::kAborted, HasSubstr("others")));
  end.Notify();
  EXPECT_TRUE(queue_.Drain(kLong));
}

TEST_F(YieldTest, ACancelEndsTheWait) {
  absl::Notification end;
  Add("long", Priority::kNormal, &end);
  go_.Notify();

  token_.Cancel();

  done_.WaitForNotification();
  EXPECT_THAT(yielded_, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  end.Notify();
  EXPECT_TRUE(queue_.Drain(kLong));
}

}  // namespace
}  // namespace ess::admission
