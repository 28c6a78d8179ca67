#include "server/base/torch_status.h"

#include <ATen/ATen.h>

#include <new>
#include <stdexcept>

#include "gtest/gtest.h"
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

TEST(CatchTorchTest, AnyOtherExceptionIsAnErrorOfOurs) {
  EXPECT_THAT(CatchTorch("work",
                         [] {
                           at::ones({2}).view({3});
                           return absl::OkStatus();
                         }),
              StatusIs(StatusCode::kInternal, AllOf(StartsWith("work: "), Not(HasSubstr("\n")))));
  EXPECT_THAT(CatchTorch("work", []() -> absl::Status { throw std::runtime_error("broken"); }),
              StatusIs(StatusCode::kInternal, "work: broken"));
}

}  // namespace
}  // namespace ess
