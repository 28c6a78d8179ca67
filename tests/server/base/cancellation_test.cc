#include "server/base/cancellation.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;

TEST(CancellationTokenTest, IsOkUntilItIsCancelled) {
  CancellationToken token;
  EXPECT_THAT(token.Check(), IsOk());

  token.Cancel();

  EXPECT_THAT(token.Check(), StatusIs(absl::StatusCode::kCancelled, _));
}

TEST(CancellationTokenTest, ReportsAPastDeadline) {
  CancellationToken token(absl::Now() - absl::Seconds(1));
  EXPECT_THAT(token.Check(), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST(CancellationTokenTest, ReportsThePastDeadlineOfACancelledCall) {
  CancellationToken token(absl::Now() - absl::Seconds(1));
  token.Cancel();
  EXPECT_THAT(token.Check(), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST(CancellationTokenTest, IsOkBeforeTheDeadline) {
  CancellationToken token(absl::Now() + absl::Hours(1));
  EXPECT_THAT(token.Check(), IsOk());
}

TEST(AwaitOrCancelTest, EndsWhenTheConditionHoldsOrTheTokenIsCancelled) {
  absl::Mutex mutex;
  absl::MutexLock lock(&mutex);
  CancellationToken token;
  bool holds = true;
  EXPECT_THAT(AwaitOrCancel(mutex, absl::Condition(&holds), token), IsOk());

  holds = false;
  token.Cancel();

  EXPECT_THAT(AwaitOrCancel(mutex, absl::Condition(&holds), token),
              StatusIs(absl::StatusCode::kCancelled, _));
}

}  // namespace
}  // namespace ess
