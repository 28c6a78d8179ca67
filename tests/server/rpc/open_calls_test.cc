#include "server/rpc/open_calls.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using absl::StatusCode;
using ::ess::testing::StatusIs;
using ::testing::_;

TEST(OpenCallsTest, CountsUntilACallIsClosed) {
  OpenCalls calls;
  CancellationToken token;
  calls.Opened(token);
  EXPECT_EQ(calls.AwaitNone(absl::ZeroDuration()), 1);

  calls.Closed(token);

  EXPECT_EQ(calls.AwaitNone(absl::InfiniteDuration()), 0);
}

TEST(OpenCallsTest, CancelsThoseThatAreOpenAndThoseToComeAndNoOthers) {
  OpenCalls calls;
  CancellationToken closed, open, later;
  calls.Opened(closed);
  calls.Closed(closed);
  calls.Opened(open);

  calls.CancelAll();
  calls.Opened(later);

  EXPECT_TRUE(closed.Check().ok());
  EXPECT_THAT(open.Check(), StatusIs(StatusCode::kCancelled, _));
  EXPECT_THAT(later.Check(), StatusIs(StatusCode::kCancelled, _));
}

TEST(OpenCallsTest, SaysWhoCancelled) {
  OpenCalls calls;
  const absl::Status cancelled = absl::CancelledError("cancelled by the caller");
  EXPECT_EQ(calls.StatusOf(cancelled), cancelled);

  calls.CancelAll();

  EXPECT_THAT(calls.StatusOf(cancelled), StatusIs(StatusCode::kUnavailable, _));
  EXPECT_THAT(calls.StatusOf(absl::NotFoundError("x")), StatusIs(StatusCode::kNotFound, _));
  EXPECT_TRUE(calls.StatusOf(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace ess::rpc
