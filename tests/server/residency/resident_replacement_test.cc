// Weights that take the place of others of the same model.
#include <memory>
#include <thread>

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

using ResidentReplacementTest = ResidentModelsTest;

TEST_F(ResidentReplacementTest, AReloadPutsNewWeightsBesideTheOldAndSwaps) {
  Start();
  Outcome old_use, reload;
  Use(old_use, "a");
  source_.Close("a");
  models_->WhenReady(ReloadOf("a"), reload.Receiver());
  WaitForReason("a", "serves until it is replaced: reads its weights");
  EXPECT_EQ(StateOf("a"), ModelState::kReady);
  EXPECT_EQ(models_->UsedBytes("fake"), 200);

  source_.Open("a");

  EXPECT_THAT(reload.Wait(), IsOk());
  EXPECT_NE(&reload.lease().weights(), &old_use.lease().weights());
  EXPECT_EQ(source_.alive_bytes(), 200);
  EXPECT_THAT(source_.serving(), ElementsAre("a"));
  old_use.Release();
  while (source_.alive_bytes() != 100) std::this_thread::yield();
  EXPECT_EQ(StateOf("a"), ModelState::kReady);
}

TEST_F(ResidentReplacementTest, AReloadThatFailsLeavesTheOldWeightsServing) {
  Start();
  Touch("a");
  source_.SetFailure("a", absl::DataLossError("truncated"));
  Outcome reload, use;

  models_->WhenReady(ReloadOf("a"), reload.Receiver());

  EXPECT_THAT(reload.Wait(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")));
  EXPECT_EQ(StateOf("a"), ModelState::kReady);
  EXPECT_EQ(Get("a").reason, "serves the old weights; reload failed: DATA_LOSS: truncated");
  Use(use, "a");
}

TEST_F(ResidentReplacementTest, AReloadWithoutRoomForBothLetsTheOldWeightsGoFirst) {
  Start();
  source_.SetBytes("a", 200);
  Outcome use, reload;
  Use(use, "a");
  models_->WhenReady(ReloadOf("a"), reload.Receiver());
  WaitForReason("a", "makes room for its replacement: waits for 1 request");

  use.Release();

  EXPECT_THAT(reload.Wait(), IsOk());
  EXPECT_EQ(source_.peak_bytes(), 200);
}

TEST_F(ResidentReplacementTest, AReloadThatIsCancelledBeforeItsTurnLeavesTheOldWeightsServing) {
  Start();
  source_.SetBytes("a", 200);
  Outcome use, reload;
  Use(use, "a");
  ResidentModels::Request request = ReloadOf("a");
  const auto token = std::make_shared<CancellationToken>();
  request.cancellation = token;
  models_->WhenReady(request, reload.Receiver());
  WaitForState("a", ModelState::kUnloading);

  token->Cancel();

  EXPECT_THAT(reload.Wait(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_EQ(StateOf("a"), ModelState::kReady);
}

TEST_F(ResidentReplacementTest, EveryReloadSeesFilesThatAreNoOlderThanItself) {
  Start();
  Touch("a");
  source_.Close("a");
  Outcome first, second;
  models_->WhenReady(ReloadOf("a"), first.Receiver());
  WaitForReason("a", "reads its weights");
  models_->WhenReady(ReloadOf("a"), second.Receiver());

  source_.Open("a");

  EXPECT_THAT(first.Wait(), IsOk());
  first.Release();
  EXPECT_THAT(second.Wait(), IsOk());
  EXPECT_EQ(source_.loads().size(), 3u);
}

// "a" is to be replaced, and drains for "c" meanwhile; "c" then gets the room of "b", and it is the
// turn of the new "a" in the same moment.
TEST_F(ResidentReplacementTest, AModelThatDrainedForAnotherLoadIsReplacedWhenItsTurnComes) {
  Start(/*patience=*/absl::ZeroDuration(), /*max_parallel_loads=*/2);
  source_.SetBytes("a", 160);
  source_.SetBytes("b", 90);
  source_.SetBytes("c", 120);
  source_.SetBytes("one thread", 1);
  source_.SetBytes("other thread", 1);
  Outcome old_use, other_use, one, other, c, reload;
  Use(old_use, "a");
  Use(other_use, "b");
  source_.Close("one thread");
  models_->WhenReady(RequestFor("one thread"), one.Receiver());
  WaitForReason("one thread", "reads its weights");
  source_.HideSize("other thread");
  models_->WhenReady(RequestFor("other thread"), other.Receiver());
  WaitForReason("other thread", "reads how large it is");
  models_->WhenReady(RequestFor("c"), c.Receiver());
  models_->WhenReady(ReloadOf("a"), reload.Receiver());
  source_.ShowSize("other thread");
  WaitForReason("a", "draining for 'c'");
  source_.Open("one thread");
  EXPECT_THAT(one.Wait(), IsOk());

  other_use.Release();

  EXPECT_THAT(c.Wait(), IsOk());
  c.Release();
  WaitForReason("a", "makes room for its replacement");
  old_use.Release();
  EXPECT_THAT(reload.Wait(), IsOk());
}

}  // namespace
}  // namespace ess::residency
