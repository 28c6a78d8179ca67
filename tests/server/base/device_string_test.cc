#include "server/base/device.h"

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

TEST(DeviceStringTest, RefusesWhatIsNoDevice) {
  for (const char* device : {"abacus", "cpu:", "cuda:-1", "cuda:x", "cpu:99999999999", "\n"}) {
    EXPECT_THAT(ResolveDevice(device),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not a device")))
        << device;
  }
}

TEST(DeviceStringTest, RefusesADeviceThatIsNotThere) {
  // 128 is -128 to c10.
  for (const char* device : {"cuda:99", "cuda:128", "meta", "privateuseone:0"}) {
    EXPECT_THAT(ResolveDevice(device), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                HasSubstr("is not on this machine")))
        << device;
  }
}

TEST(DeviceStringTest, KnowsTheCpuByItsNames) {
  EXPECT_EQ(*ResolveDevice("cpu"), "cpu");
  EXPECT_EQ(*ResolveDevice("cpu:0"), "cpu");
}

}  // namespace
}  // namespace ess
