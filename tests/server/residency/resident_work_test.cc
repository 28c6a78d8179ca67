// Memory for work beside the weights.
#include <algorithm>
#include <iterator>
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
using ::testing::HasSubstr;

class ResidentWorkTest : public ResidentModelsTest {
 protected:
  // Two leases of one model; the first has room for its work, the second has none beside it.
  void StartWithHeldRoom() {
    Start();
    Use(holder_, "a");
    Use(other_, "a");
    held_ = std::make_unique<absl::StatusOr<ResidentModels::Reservation>>(
        models_->ReserveWork(holder_.lease(), 150, *never_));
  }

  Outcome holder_, other_;
  std::unique_ptr<absl::StatusOr<ResidentModels::Reservation>> held_;
};

TEST_F(ResidentWorkTest, WorkTakesRoomBesideTheWeightsAndGivesItBack) {
  Start();
  Outcome a;
  Use(a, "a");
  {
    const auto work = models_->ReserveWork(a.lease(), 150, *never_);
    ASSERT_THAT(work, IsOk());
    EXPECT_EQ(models_->UsedBytes("fake"), 250);
  }
  EXPECT_EQ(models_->UsedBytes("fake"), 100);
}

TEST_F(ResidentWorkTest, WorkEvictsAModelThatNobodyUses) {
  Start();
  Touch("b");
  Outcome a;
  Use(a, "a");

  ASSERT_THAT(models_->ReserveWork(a.lease(), 200, *never_), IsOk());

  EXPECT_EQ(Get("b").reason, "evicted for work of 'a'");
}

TEST_F(ResidentWorkTest, RefusesWorkThatCouldNeverFitBesideItsModel) {
  Start();
  Outcome a;
  Use(a, "a");
  EXPECT_THAT(models_->ReserveWork(a.lease(), 201, *never_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("201 bytes of memory beside model 'a'; the limit is 200")));
}

TEST_F(ResidentWorkTest, WorkWaitsForOtherWork) {
  StartWithHeldRoom();
  const CancellationToken soon(absl::Now() + absl::Milliseconds(30));
  EXPECT_THAT(models_->ReserveWork(other_.lease(), 150, soon),
              StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  std::thread second(
      [&] { EXPECT_THAT(models_->ReserveWork(other_.lease(), 150, *never_), IsOk()); });

  held_.reset();

  second.join();
  EXPECT_EQ(models_->UsedBytes("fake"), 100);
}

TEST_F(ResidentWorkTest, AModelIsNeededElsewhereOnceSomebodyHasWaitedForItsMemory) {
  Start(/*patience=*/absl::Milliseconds(20));
  Outcome a, b;
  Use(a, "a");
  Use(b, "b");
  auto first = std::make_unique<absl::StatusOr<ResidentModels::Reservation>>(
      models_->ReserveWork(a.lease(), 50, *never_));
  EXPECT_FALSE(models_->IsNeededElsewhere("a"));
  EXPECT_FALSE(models_->IsNeededElsewhere("c"));
  std::thread second([&] { EXPECT_THAT(models_->ReserveWork(b.lease(), 80, *never_), IsOk()); });

  while (!models_->IsNeededElsewhere("a")) absl::SleepFor(absl::Milliseconds(1));

  first.reset();
  second.join();
  EXPECT_FALSE(models_->IsNeededElsewhere("a"));
}

TEST_F(ResidentWorkTest, WorkThatHasToWaitWaitsAside) {
  StartWithHeldRoom();
  int waits = 0;
  const auto aside = [&](absl::FunctionRef<absl::Status()> wait) {
    ++waits;
    held_.reset();
    return wait();
  };

  ASSERT_THAT(models_->ReserveWork(other_.lease(), 50, *never_, aside), IsOk());
  EXPECT_EQ(waits, 0);
  EXPECT_THAT(models_->ReserveWork(other_.lease(), 150, *never_, aside), IsOk());
  EXPECT_EQ(waits, 1);
}

TEST_F(ResidentWorkTest, WorkThatCannotGoOnAfterItsWaitGivesItsRoomBack) {
  StartWithHeldRoom();
  const auto aside = [&](absl::FunctionRef<absl::Status()> wait) {
    held_.reset();
    EXPECT_THAT(wait(), IsOk());
    return absl::CancelledError("the caller left");
  };

  EXPECT_THAT(models_->ReserveWork(other_.lease(), 150, *never_, aside),
              StatusIs(absl::StatusCode::kCancelled, _));

  EXPECT_EQ(models_->UsedBytes("fake"), 100);
}

TEST_F(ResidentWorkTest, OfLeasesThatWaitForEachOthersRoomOneGivesWay) {
  Start(/*patience=*/absl::Milliseconds(20));
  Outcome uses[2];
  Use(uses[0], "a");
  Use(uses[1], "b");
  absl::Status results[2];
  std::vector<std::thread> threads;

  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      results[i] = models_->ReserveWork(uses[i].lease(), 150, *never_).status();
      uses[i].Release();
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::sort(std::begin(results), std::end(results),
            [](const auto& a, const auto& b) { return a.code() < b.code(); });
  EXPECT_THAT(results[0], IsOk());
  EXPECT_THAT(results[1], StatusIs(absl::StatusCode::kAborted, HasSubstr("no room for 150 bytes")));
}

TEST_F(ResidentWorkTest, WorkOfADrainingModelGoesBeforeTheLoadThatItDrainsFor) {
  Start(/*patience=*/absl::ZeroDuration());
  Outcome a, b;
  Use(a, "a");
  source_.SetBytes("b", 300);
  models_->WhenReady(RequestFor("b"), b.Receiver());
  WaitForState("a", ModelState::kUnloading);

  EXPECT_THAT(models_->ReserveWork(a.lease(), 200, *never_), IsOk());

  a.Release();
  EXPECT_THAT(b.Wait(), IsOk());
}

}  // namespace
}  // namespace ess::residency
