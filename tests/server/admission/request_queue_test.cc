#include "server/admission/request_queue.h"

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "server/admission/retry_after.h"
#include "tests/support/status_matchers.h"

namespace ess::admission {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(30);

// A queue whose only large slot is taken until Open; what is added meanwhile runs in the order
// that the queue chooses.
class RequestQueueTest : public ::testing::Test {
 protected:
  void Make(RequestQueue::Options options = {}) {
    queue_.emplace(options, metrics_);
    const auto id = queue_->Enter({.model = "gate", .caller = "gate"}, [](const absl::Status&) {});
    ASSERT_THAT(id, IsOk());
    queue_->Start(*id, Weight::kLarge, [this](RequestQueue::Slot&) {
      closed_.Notify();
      open_.WaitForNotification();
    });
    closed_.WaitForNotification();
  }

  void TearDown() override {
    if (!open_.HasBeenNotified()) open_.Notify();
  }

  absl::StatusOr<RequestQueue::Id> Enter(const std::string& caller, int64_t tokens = 1,
                                         Priority priority = Priority::kNormal) {
    return queue_->Enter(
        {.model = "m", .caller = caller, .priority = priority, .tokens = tokens},
        [this, caller](const absl::Status& status) { displaced_.emplace_back(caller, status); });
  }

  // Enters, and writes `name` when it runs.
  RequestQueue::Id Add(const std::string& name, const std::string& caller, int64_t tokens = 1,
                       Priority priority = Priority::kNormal) {
    const auto id = Enter(caller, tokens, priority);
    EXPECT_THAT(id, IsOk());
    queue_->Start(*id, Weight::kLarge, [this, name](RequestQueue::Slot&) { order_ += name; });
    return id.value_or(0);
  }

  std::string OrderOnceOpen() {
    open_.Notify();
    EXPECT_TRUE(queue_->Drain(kLong));
    return order_;
  }

  telemetry::Metrics metrics_;
  absl::Notification closed_, open_;
  std::string order_;
  std::vector<std::pair<std::string, absl::Status>> displaced_;
  std::optional<RequestQueue> queue_;
};

TEST_F(RequestQueueTest, OneCallersRequestsRunInTheOrderOfArrival) {
  Make();
  for (const char* name : {"a", "b", "c"}) Add(name, "alice");

  EXPECT_EQ(OrderOnceOpen(), "abc");
}

TEST_F(RequestQueueTest, ACallerWithOneRequestDoesNotWaitForAllOfAnothers) {
  Make();
  for (const char* name : {"a", "b", "c", "d"}) Add(name, "alice");
  Add("X", "bob");

  EXPECT_EQ(OrderOnceOpen(), "aXbcd");
}

TEST_F(RequestQueueTest, FairnessIsInTokensNotInRequests) {
  Make();
  Add("A", "alice", 100);
  Add("B", "alice", 100);
  for (const char* name : {"1", "2", "3", "4"}) Add(name, "bob", 30);

  EXPECT_EQ(OrderOnceOpen(), "A1234B");
}

TEST_F(RequestQueueTest, WhoComesLaterGetsNothingForTheTimeBefore) {
  Make();
  for (const char* name : {"a", "b", "c", "d"}) Add(name, "alice", 10);
  absl::Notification third;
  // While alice's third runs, bob comes with as many as she has left, and more.
  const auto gate = Enter("alice", 10);
  queue_->Start(*gate, Weight::kLarge, [&](RequestQueue::Slot&) {
    for (const char* name : {"W", "X", "Y", "Z"}) Add(name, "bob", 10);
    for (const char* name : {"e", "f"}) Add(name, "alice", 10);
    third.Notify();
  });
  open_.Notify();
  third.WaitForNotification();
  EXPECT_TRUE(queue_->Drain(kLong));

  // They take turns, roughly: bob's four do not all go before alice's.
  EXPECT_EQ(order_.substr(0, 4), "abcd");
  EXPECT_LT(order_.find('e'), order_.find('Z'));
}

TEST_F(RequestQueueTest, LowPriorityWaitsButDoesNotStarve) {
  Make();
  Add("L", "alice", 1, Priority::kLow);
  for (int i = 0; i < 10; ++i) Add("n", "bob");

  // The gate was the first normal one.
  EXPECT_EQ(OrderOnceOpen(), "nnnnnnLnnnn");
}

TEST_F(RequestQueueTest, AFullQueueRefusesAtOnceNamesTheLimitAndSaysWhenToComeBack) {
  Make({.max_requests = 1});
  Add("a", "alice");

  const auto refused = Enter("alice");

  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("the limit is 1 (max_queued_profiles)")));
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
}

TEST_F(RequestQueueTest, TokensAreLimitedAsRequestsAre) {
  Make({.max_tokens = 100});
  Add("a", "alice", 60);

  EXPECT_THAT(Enter("bob", 60), StatusIs(absl::StatusCode::kResourceExhausted,
                                         HasSubstr("60 tokens are asked for and 60 wait")));
  EXPECT_THAT(Enter("bob", 40), IsOk());
}

TEST_F(RequestQueueTest, WhatCanNeverFitIsTheCallersMistake) {
  Make({.max_tokens = 100});

  EXPECT_THAT(Enter("bob", 101),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("101 tokens in one request; the limit is 100")));
}

TEST_F(RequestQueueTest, EachModelHasItsOwnPlaces) {
  Make({.max_requests = 1});
  Add("a", "alice");

  EXPECT_THAT(queue_->Enter({.model = "other", .caller = "alice"}, [](const absl::Status&) {}),
              IsOk());
}

TEST_F(RequestQueueTest, AGreedyCallerMakesRoomForAnother) {
  Make({.max_requests = 3});
  for (const char* name : {"a", "b", "c"}) Add(name, "alice");

  Add("X", "bob");

  ASSERT_EQ(displaced_.size(), 1u);
  EXPECT_EQ(displaced_[0].first, "alice");
  EXPECT_THAT(displaced_[0].second, StatusIs(absl::StatusCode::kResourceExhausted,
                                             HasSubstr("most of them this caller's")));
  EXPECT_EQ(OrderOnceOpen(), "aXb");
}

TEST_F(RequestQueueTest, ARequestThatLeftNeverRunsAndItsPlaceIsFree) {
  Make({.max_requests = 1});
  const RequestQueue::Id id = Add("a", "alice");

  EXPECT_TRUE(queue_->Leave(id));
  EXPECT_FALSE(queue_->Leave(id));
  Add("b", "alice");

  EXPECT_EQ(OrderOnceOpen(), "b");
}

TEST_F(RequestQueueTest, ARequestThatIsNotStartedHoldsUpNobody) {
  Make();
  const auto waits = Enter("alice");
  Add("b", "alice");
  open_.Notify();
  EXPECT_FALSE(queue_->Drain(absl::Milliseconds(100)));
  EXPECT_EQ(order_, "b");

  queue_->Start(*waits, Weight::kLarge, [this](RequestQueue::Slot&) { order_ += "a"; });

  EXPECT_TRUE(queue_->Drain(kLong));
  EXPECT_EQ(order_, "ba");
}

TEST_F(RequestQueueTest, SmallRequestsRunBesideALargeOneAndBesideEachOther) {
  Make({.small_slots = 2});
  absl::Notification here[2];
  for (int i = 0; i < 2; ++i) {
    const auto id = Enter("alice");
    // Each waits for the other: one after the other they would never end.
    queue_->Start(*id, Weight::kSmall, [&here, i](RequestQueue::Slot&) {
      here[i].Notify();
      here[1 - i].WaitForNotification();
    });
  }
  for (absl::Notification& one : here) one.WaitForNotification();

  EXPECT_EQ(OrderOnceOpen(), "");
}

TEST_F(RequestQueueTest, ARequestThatWaitsAsideLetsAnotherRunAndGoesOnAfterIt) {
  Make();
  absl::Notification other;
  const auto waits = Enter("alice");
  queue_->Start(*waits, Weight::kLarge, [&](RequestQueue::Slot& slot) {
    const auto wait = [&] {
      other.WaitForNotification();
      return absl::OkStatus();
    };
    EXPECT_THAT(slot.WaitAside(wait, CancellationToken()), IsOk());
    order_ += "a";
  });
  const auto id = Enter("bob");
  queue_->Start(*id, Weight::kLarge, [&](RequestQueue::Slot&) {
    order_ += "b";
    other.Notify();
  });

  EXPECT_EQ(OrderOnceOpen(), "ba");
}

TEST_F(RequestQueueTest, ARequestThatIsCancelledAsideDoesNotWaitForASlot) {
  Make();
  absl::Notification other_runs, first_ended;
  CancellationToken cancellation;
  const auto waits = Enter("alice");
  queue_->Start(*waits, Weight::kLarge, [&](RequestQueue::Slot& slot) {
    const auto wait = [&] {
      other_runs.WaitForNotification();
      cancellation.Cancel();
      return absl::OkStatus();
    };
    EXPECT_THAT(slot.WaitAside(wait, cancellation),
                StatusIs(absl::StatusCode::kCancelled, HasSubstr("cancelled")));
    order_ += "a";
    first_ended.Notify();
  });
  const auto id = Enter("bob");
  queue_->Start(*id, Weight::kLarge, [&](RequestQueue::Slot&) {
    other_runs.Notify();
    first_ended.WaitForNotification();
    order_ += "b";
  });
  Add("c", "carol");

  EXPECT_EQ(OrderOnceOpen(), "abc");
}

TEST_F(RequestQueueTest, RefusesAfterADrainBegan) {
  queue_.emplace(RequestQueue::Options{}, metrics_);

  EXPECT_TRUE(queue_->Drain(absl::ZeroDuration()));

  EXPECT_THAT(Enter("alice"), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
}

// For ThreadSanitizer, and for the promise that a place ends in exactly one way.
TEST_F(RequestQueueTest, AllThatWaitCanBeEnded) {
  Make();
  Add("a", "alice");
  ASSERT_THAT(Enter("bob"), IsOk());  // Not started yet.

  queue_->EndWaiting(absl::UnavailableError("over"));

  ASSERT_EQ(displaced_.size(), 2);
  EXPECT_THAT(displaced_[0].second, StatusIs(absl::StatusCode::kUnavailable, "over"));
  EXPECT_EQ(OrderOnceOpen(), "");
}

TEST_F(RequestQueueTest, EveryPlaceEndsInExactlyOneWayWhoeverComesAndGoes) {
  queue_.emplace(RequestQueue::Options{.large_slots = 2, .small_slots = 2, .max_requests = 8},
                 metrics_);
  constexpr int kThreads = 8, kEach = 200;
  std::atomic<int> entered{0}, ended{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const auto id =
            queue_->Enter({.model = "m", .caller = std::to_string(t % 3), .tokens = i % 5},
                          [&](const absl::Status&) { ++ended; });
        if (!id.ok()) continue;
        ++entered;
        queue_->Start(*id, i % 2 == 0 ? Weight::kSmall : Weight::kLarge,
                      [&, i](RequestQueue::Slot& slot) {
                        if (i % 7 == 0) {
                          const auto wait = [] { return absl::OkStatus(); };
                          EXPECT_THAT(slot.WaitAside(wait, CancellationToken()), IsOk());
                        }
                        ++ended;
                      });
        if (i % 3 == 0 && queue_->Leave(*id)) ++ended;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_TRUE(queue_->Drain(kLong));
  EXPECT_EQ(entered, ended);
}

TEST_F(RequestQueueTest, WhatIsInTheBackgroundTakesNobodysPlace) {
  Make({.max_requests = 1, .max_tokens = 10});

  EXPECT_THAT(queue_->Enter({.model = "m",
                             .caller = "jobs",
                             .priority = Priority::kLow,
                             .tokens = 1000,
                             .background = true},
                            [](const absl::Status&) { ADD_FAILURE(); }),
              IsOk());

  EXPECT_THAT(Enter("a", 10), IsOk());
  EXPECT_THAT(Enter("b"), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1 ")));
}

}  // namespace
}  // namespace ess::admission
