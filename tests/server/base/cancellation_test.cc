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

}  // namespace
}  // namespace ess
