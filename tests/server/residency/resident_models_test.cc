#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/residency/resident_models_fixture.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(ResidentModelsTest, AnswersInlineWhenTheModelIsInMemory) {
  Start();
  Touch("a");
  Outcome outcome;

  models_->WhenReady(RequestFor("a"), outcome.Receiver());

  EXPECT_TRUE(outcome.answered());
  EXPECT_EQ(outcome.thread(), std::this_thread::get_id());
  EXPECT_EQ(outcome.lease().name(), "a");
}

TEST_F(ResidentModelsTest, LoadsOnAThreadOfItsOwnAndAnswersAllWhoWaitOnce) {
  Start();
  source_.Close("a");
  Outcome first, second;
  models_->WhenReady(RequestFor("a"), first.Receiver());
  models_->WhenReady(RequestFor("a"), second.Receiver());
  WaitForReason("a", "reads its weights");
  EXPECT_FALSE(first.answered());

  source_.Open("a");

  EXPECT_THAT(first.Wait(), IsOk());
  EXPECT_THAT(second.Wait(), IsOk());
  EXPECT_NE(first.thread(), std::this_thread::get_id());
  EXPECT_THAT(source_.loads(), ElementsAre("a"));
  EXPECT_EQ(first.calls() + second.calls(), 2);
}

TEST_F(ResidentModelsTest, ServesOtherModelsWhileOneLoads) {
  Start();
  Touch("a");
  source_.Close("b");
  Outcome slow, fast;
  models_->WhenReady(RequestFor("b"), slow.Receiver());
  WaitForReason("b", "reads its weights");

  models_->WhenReady(RequestFor("a"), fast.Receiver());

  EXPECT_TRUE(fast.answered());
  source_.Open("b");
  EXPECT_THAT(slow.Wait(), IsOk());
}

TEST_F(ResidentModelsTest, LoadsAsManyAtATimeAsItIsTold) {
  Start(kNever, /*max_parallel_loads=*/2);
  for (const char* name : {"a", "b", "c"}) source_.Close(name);
  Outcome a, b, c;
  models_->WhenReady(RequestFor("a"), a.Receiver());
  models_->WhenReady(RequestFor("b"), b.Receiver());
  WaitForReason("a", "reads its weights");
  WaitForReason("b", "reads its weights");
  models_->WhenReady(RequestFor("c"), c.Receiver());
  EXPECT_EQ(StateOf("c"), ModelState::kLoading);

  for (const char* name : {"a", "b", "c"}) source_.Open(name);

  for (Outcome* outcome : {&a, &b, &c}) EXPECT_THAT(outcome->Wait(), IsOk());
  EXPECT_FALSE(source_.overlapped());
}

TEST_F(ResidentModelsTest, AnswersACancelledWaiterWhileTheLoadGoesOn) {
  Start();
  source_.Close("a");
  const auto token = std::make_shared<CancellationToken>();
  ResidentModels::Request request = RequestFor("a");
  request.cancellation = token;
  Outcome cancelled, patient;
  models_->WhenReady(request, cancelled.Receiver());
  models_->WhenReady(RequestFor("a"), patient.Receiver());
  WaitForReason("a", "reads its weights");

  token->Cancel();

  EXPECT_THAT(cancelled.Wait(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_FALSE(patient.answered());
  source_.Open("a");
  EXPECT_THAT(patient.Wait(), IsOk());
  EXPECT_EQ(cancelled.calls(), 1);
}

TEST_F(ResidentModelsTest, AnswersAWaiterAtItsDeadlineAndDropsALoadThatNobodyWaitsFor) {
  Start();
  Outcome holders[3];
  for (int i = 0; i < 3; ++i) Use(holders[i], std::string(1, static_cast<char>('a' + i)));
  ResidentModels::Request request = RequestFor("d");
  request.cancellation = std::make_shared<CancellationToken>(absl::Now() + absl::Milliseconds(50));
  Outcome late;

  models_->WhenReady(request, late.Receiver());

  EXPECT_THAT(late.Wait(), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  WaitForState("d", ModelState::kCold);
}

TEST_F(ResidentModelsTest, EvictsTheLeastRecentlyUsedModelThatNobodyUses) {
  Start();
  Outcome a;
  Use(a, "a");
  Touch("b");
  Touch("c");
  Touch("b");

  Touch("d");

  EXPECT_EQ(StateOf("a"), ModelState::kReady);  // Used.
  EXPECT_EQ(StateOf("b"), ModelState::kReady);
  EXPECT_EQ(StateOf("c"), ModelState::kCold);
  EXPECT_EQ(Get("c").reason, "evicted for 'd'");
  EXPECT_EQ(models_->UsedBytes("fake"), 300);
  EXPECT_EQ(source_.peak_bytes(), 300);
}

TEST_F(ResidentModelsTest, NeverEvictsAPinnedModel) {
  Start();
  Touch("a", {.pinned = true});
  Touch("b");
  Touch("c");

  Touch("d");

  EXPECT_EQ(StateOf("a"), ModelState::kReady);
  EXPECT_EQ(StateOf("b"), ModelState::kCold);
  EXPECT_THAT(UnloadAndWait(*models_, "a"), IsOk());
  EXPECT_EQ(StateOf("a"), ModelState::kCold);
}

TEST_F(ResidentModelsTest, RefusesWhatCanNeverFit) {
  Start();
  source_.SetBytes("huge", 301);
  Outcome load, use;
  models_->WhenReady(LoadOf("huge"), load.Receiver());

  EXPECT_THAT(load.Wait(), StatusIs(absl::StatusCode::kResourceExhausted,
                                    HasSubstr("301 bytes on fake; the limit is 300")));
  models_->WhenReady(RequestFor("huge"), use.Receiver());
  EXPECT_THAT(use.Wait(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("301")));
  EXPECT_EQ(StateOf("huge"), ModelState::kFailed);
  EXPECT_TRUE(source_.loads().empty());
}

TEST_F(ResidentModelsTest, RefusesWhatCannotFitBesideThePinnedModels) {
  Start();
  Touch("a", {.pinned = true});
  source_.SetBytes("large", 250);
  Outcome load;

  models_->WhenReady(LoadOf("large"), load.Receiver());

  EXPECT_THAT(load.Wait(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("less pinned models")));
}

TEST_F(ResidentModelsTest, ALoadWaitsWhileEveryModelIsInUse) {
  Start();
  source_.SetBytes("a", 300);
  Outcome a, b;
  Use(a, "a");
  models_->WhenReady(RequestFor("b"), b.Receiver());
  WaitForReason("b", "waits for 100 bytes on fake; 'a' is in use");
  EXPECT_FALSE(b.answered());

  a.Release();

  EXPECT_THAT(b.Wait(), IsOk());
  EXPECT_EQ(StateOf("a"), ModelState::kCold);
}

TEST_F(ResidentModelsTest, LoadsGetRoomInTheOrderInWhichTheyCame) {
  Start();
  source_.SetBytes("a", 200);
  source_.SetBytes("large", 200);
  Outcome a, large, small;
  Use(a, "a");
  models_->WhenReady(RequestFor("large"), large.Receiver());
  WaitForReason("large", "waits for 200 bytes");
  models_->WhenReady(RequestFor("small"), small.Receiver());
  WaitForReason("small", "'large' is before it");

  a.Release();

  EXPECT_THAT(large.Wait(), IsOk());
  EXPECT_THAT(small.Wait(), IsOk());
  EXPECT_THAT(source_.loads(), ElementsAre("a", "large", "small"));
}

TEST_F(ResidentModelsTest, AnOverdueLoadDrainsTheModelInUseWhichComesBackAfterIt) {
  Start(/*patience=*/absl::ZeroDuration());
  source_.SetBytes("a", 300);
  source_.SetBytes("b", 300);
  Outcome a, b, again;
  Use(a, "a");
  models_->WhenReady(RequestFor("b"), b.Receiver());
  WaitForReason("a", "draining for 'b': waits for 1 request");
  EXPECT_EQ(StateOf("a"), ModelState::kUnloading);
  models_->WhenReady(RequestFor("a"), again.Receiver());
  EXPECT_FALSE(again.answered());

  a.Release();

  EXPECT_THAT(b.Wait(), IsOk());
  EXPECT_FALSE(again.answered());
  b.Release();
  EXPECT_THAT(again.Wait(), IsOk());
  EXPECT_THAT(source_.loads(), ElementsAre("a", "b", "a"));
}

TEST_F(ResidentModelsTest, ADrainingModelServesAgainWhenTheLoadIsCancelled) {
  Start(/*patience=*/absl::ZeroDuration());
  source_.SetBytes("a", 300);
  Outcome a, b, more;
  Use(a, "a");
  const auto token = std::make_shared<CancellationToken>();
  ResidentModels::Request request = RequestFor("b");
  request.cancellation = token;
  models_->WhenReady(request, b.Receiver());
  WaitForState("a", ModelState::kUnloading);
  models_->WhenReady(RequestFor("a"), more.Receiver());

  token->Cancel();

  EXPECT_THAT(b.Wait(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_THAT(more.Wait(), IsOk());
  EXPECT_EQ(StateOf("a"), ModelState::kReady);
}

TEST_F(ResidentModelsTest, UnloadWaitsForTheLastLeaseAndCanBeCancelled) {
  Start();
  Outcome a, more;
  Use(a, "a");
  const auto past = std::make_shared<CancellationToken>(absl::Now() - absl::Seconds(1));
  EXPECT_THAT(UnloadAndWait(*models_, "a", past), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  EXPECT_EQ(StateOf("a"), ModelState::kReady);

  std::thread unload([&] {
    const auto released = UnloadAndWait(*models_, "a");
    ASSERT_THAT(released, IsOk());
    EXPECT_EQ(*released, 100);
  });
  WaitForReason("a", "unloading: waits for 1 request");
  a.Release();
  unload.join();

  EXPECT_EQ(StateOf("a"), ModelState::kCold);
  EXPECT_EQ(Get("a").reason, "unloaded");
  EXPECT_EQ(source_.alive_bytes(), 0);
}

TEST_F(ResidentModelsTest, AnUnloadThatIsCancelledWhileItWaitsLeavesTheModelServing) {
  Start();
  Outcome a, more;
  Use(a, "a");
  const auto token = std::make_shared<CancellationToken>();
  std::thread unload([&] {
    EXPECT_THAT(UnloadAndWait(*models_, "a", token), StatusIs(absl::StatusCode::kCancelled, _));
  });
  WaitForReason("a", "unloading: waits for 1 request");

  token->Cancel();
  unload.join();

  EXPECT_EQ(StateOf("a"), ModelState::kReady);
  Use(more, "a");
}

TEST_F(ResidentModelsTest, TheSecondOfTwoUnloadsFindsNothingLeft) {
  Start();
  Outcome a;
  Use(a, "a");
  absl::StatusOr<int64_t> released[2];
  std::vector<std::thread> threads;
  for (auto& each : released) {
    threads.emplace_back([&] { each = UnloadAndWait(*models_, "a"); });
  }
  WaitForReason("a", "unloading: waits for 1 request");

  a.Release();
  for (std::thread& thread : threads) thread.join();

  ASSERT_THAT(released[0], IsOk());
  ASSERT_THAT(released[1], IsOk());
  EXPECT_EQ(*released[0] + *released[1], 100);
}

TEST_F(ResidentModelsTest, TheEndAnswersThoseWhoWait) {
  Start();
  source_.Close("a");
  Outcome a;
  models_->WhenReady(RequestFor("a"), a.Receiver());
  WaitForReason("a", "reads its weights");

  std::thread end([&] { models_ = nullptr; });

  EXPECT_THAT(a.Wait(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  source_.Open("a");
  end.join();
  EXPECT_EQ(a.calls(), 1);
}

}  // namespace
}  // namespace ess::residency
