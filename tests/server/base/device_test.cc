#include "server/base/device.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_accelerator/test_accelerator.h"

namespace ess {
namespace {

using absl::StatusCode;
using ess::testing::kTestAccelerator;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() { ess::testing::RegisterTestAccelerator(); }
};

TEST_F(DeviceTest, TheFirstAcceleratorIsTheAutomaticChoice) {
  EXPECT_EQ(ResolveDevice("auto").value(), kTestAccelerator);
  EXPECT_EQ(ResolveDevice("").value(), kTestAccelerator);
}

TEST_F(DeviceTest, ADeviceIsNamedWithItsIndex) {
  EXPECT_EQ(ResolveDevice("testaccelerator").value(), kTestAccelerator);
  EXPECT_EQ(ResolveDevice("privateuseone:0").value(), kTestAccelerator);
  EXPECT_EQ(ResolveDevice("cpu").value(), "cpu");
  EXPECT_EQ(ResolveDevice("cpu:0").value(), "cpu");
}

TEST_F(DeviceTest, ADeviceThatIsNotThereIsRefused) {
  EXPECT_THAT(ResolveDevice("testaccelerator:1"),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("testaccelerator:1"), HasSubstr("has 1"))));
  EXPECT_THAT(ResolveDevice("mps:0"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("has 0")));
}

TEST_F(DeviceTest, WhatIsNoDeviceIsRefused) {
  EXPECT_THAT(ResolveDevice("gpu"), StatusIs(StatusCode::kInvalidArgument, HasSubstr("'gpu'")));
}

}  // namespace
}  // namespace ess
