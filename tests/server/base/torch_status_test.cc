#include "server/base/torch_status.h"

#include <ATen/ATen.h>

#include <new>
#include <stdexcept>
#include <string>

#include "c10/util/Exception.h"
#include "gtest/gtest.h"
#include "server/base/device_failure.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_accelerator/test_accelerator.h"

namespace ess {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(CatchTorchTest, AStatusPasses) {
  EXPECT_THAT(CatchTorch("work", [] { return absl::OkStatus(); }), IsOk());
  EXPECT_THAT(CatchTorch("work", [] { return absl::DataLossError("bad"); }),
              StatusIs(StatusCode::kDataLoss, "bad"));
}

TEST(CatchTorchTest, WithoutDeviceMemoryTheMessageSaysWhatIsNeededAndWhatIsFree) {
  ess::testing::RegisterTestAccelerator();
  ess::testing::ResetTestAccelerator();
  ess::testing::TestAcceleratorState().byte_budget = 1000;

  const absl::Status status = CatchTorch("work", [] {
    const at::TensorOptions floats = at::device(c10::Device(ess::testing::kTestAccelerator));
    const at::Tensor held = at::empty({100}, floats);
    at::empty({200}, floats);
    return absl::OkStatus();
  });

  EXPECT_THAT(status,
              StatusIs(StatusCode::kResourceExhausted,
                       AllOf(StartsWith("work: out of device memory: "), HasSubstr("800 bytes"),
                             HasSubstr("600 bytes are free"), Not(HasSubstr("\n")))));
}

TEST(CatchTorchTest, WithoutHostMemoryTheCodeIsTheSame) {
  EXPECT_THAT(CatchTorch("work", []() -> absl::Status { throw std::bad_alloc(); }),
              StatusIs(StatusCode::kResourceExhausted, "work: out of host memory"));
}

TEST(CatchTorchTest, AnyOtherExceptionIsAnErrorOfOursWhoseWordsStayInside) {
  const auto message = "work: an error inside the server; its log says which";
  EXPECT_THAT(CatchTorch("work",
                         [] {
                           at::ones({2}).view({3});
                           return absl::OkStatus();
                         }),
              StatusIs(StatusCode::kInternal, message));
  EXPECT_THAT(CatchTorch("work", []() -> absl::Status { throw std::runtime_error("/src/a.cc"); }),
              StatusIs(StatusCode::kInternal, message));
}

// In this order: what the last test records stays for the rest of the process.
class DeviceFailureTest : public ::testing::Test {
 protected:
  static absl::Status Throw(const std::string& text) {
    return CatchTorch("work", [&]() -> absl::Status {
      throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 0, text);
    });
  }
};

TEST_F(DeviceFailureTest, AnErrorThatPassesLeavesTheDeviceUsable) {
  EXPECT_THAT(Throw("CUDA error: invalid argument"),
              StatusIs(StatusCode::kInternal, "work: CUDA error: invalid argument"));
  EXPECT_EQ(DeviceFailure(), std::nullopt);
}

TEST_F(DeviceFailureTest, TheSameWordsFromNoDeviceAreNoFailureOfOne) {
  const absl::Status status = CatchTorch("work", []() -> absl::Status {
    throw std::runtime_error("layer 'device-side assert' has no weights");
  });

  EXPECT_THAT(status, StatusIs(StatusCode::kInternal, Not(HasSubstr("started again"))));
  EXPECT_EQ(DeviceFailure(), std::nullopt);
}

TEST_F(DeviceFailureTest, ErrorsThatLastAreKnownByTheirText) {
  for (const char* error :
       {"CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure", "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: misaligned address", "CUDA error: unknown error",
        "CUDA error: device not ready", "HIP error: the launch timed out and was terminated"}) {
    EXPECT_TRUE(BreaksTheDevice(error)) << error;
  }
  EXPECT_FALSE(BreaksTheDevice("CUDA error: out of memory"));
}

TEST_F(DeviceFailureTest, TheFirstErrorThatLastsIsRemembered) {
  EXPECT_THAT(Throw("CUDA error: device-side assert triggered\nmore"),
              StatusIs(StatusCode::kInternal,
                       AllOf(HasSubstr("assert triggered; the device cannot be used until"),
                             Not(HasSubstr("\n")))));
  Throw("CUDA error: an illegal memory access was encountered").IgnoreError();

  EXPECT_EQ(DeviceFailure(), "CUDA error: device-side assert triggered");
}

}  // namespace
}  // namespace ess
