#include "server/telemetry/exposition_server.h"

#include "gmock/gmock.h"
#include "server/telemetry/metrics.h"
#include "tests/support/status_matchers.h"

namespace ess::telemetry {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ExpositionServerTest, ReportsThePortItPicked) {
  Metrics metrics;
  const auto server = ExpositionServer::Start("127.0.0.1:0", metrics);
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->address(), ::testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));
}

TEST(ExpositionServerTest, RefusesAPortInUse) {
  Metrics metrics;
  const auto first = ExpositionServer::Start("127.0.0.1:0", metrics);
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(ExpositionServer::Start((*first)->address(), metrics),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the port is in use")));
}

TEST(ExpositionServerTest, RefusesAnAddressWithoutPort) {
  Metrics metrics;
  EXPECT_THAT(ExpositionServer::Start("localhost", metrics),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'localhost'")));
}

}  // namespace
}  // namespace ess::telemetry
