// The test accelerator is a device as LibTorch knows them, and refuses what a GPU refuses.
#include "tests/support/test_accelerator/test_accelerator.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>

#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ess::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const AcceleratorState& state() { return TestAcceleratorState(); }

class TestAcceleratorTest : public ::testing::Test {
 protected:
  TestAcceleratorTest() {
    RegisterTestAccelerator();
    ResetTestAccelerator();
  }

  static at::Tensor OnDevice(const at::Tensor& tensor) { return tensor.to(kTestAccelerator); }

  static at::TensorOptions Floats() {
    return at::TensorOptions().device(c10::Device(kTestAccelerator)).dtype(at::kFloat);
  }
};

TEST_F(TestAcceleratorTest, LibTorchFindsOneDevice) {
  RegisterTestAccelerator();

  EXPECT_EQ(at::getAccelerator(), at::kPrivateUse1);
  EXPECT_EQ(at::accelerator::deviceCount(), 1);
  EXPECT_EQ(c10::Device(kTestAccelerator).str(), kTestAccelerator);
  EXPECT_EQ(at::empty({1}, Floats()).device().str(), kTestAccelerator);
  at::accelerator::synchronizeDevice(0);
}

TEST_F(TestAcceleratorTest, AnotherDeviceIsNotThere) {
  EXPECT_THROW(at::accelerator::setDeviceIndex(1), c10::Error);
}

TEST_F(TestAcceleratorTest, MemoryIsCounted) {
  ASSERT_EQ(state().live_bytes, 0);
  {
    const at::Tensor a = at::empty({10}, Floats());
    const at::Tensor view = a.slice(0, 2, 5);
    const at::Tensor b = at::empty({5}, Floats());

    EXPECT_EQ(state().allocations, 2);
    EXPECT_EQ(state().live_bytes, 60);
  }
  const at::Tensor c = at::empty({1}, Floats());

  EXPECT_EQ(state().allocations, 3);
  EXPECT_EQ(state().live_bytes, 4);
  EXPECT_EQ(state().peak_bytes, 60);
}

TEST_F(TestAcceleratorTest, LibTorchTellsItsStatistics) {
  TestAcceleratorState().byte_budget = 1000;
  at::Tensor kept = at::empty({10}, Floats());
  { const at::Tensor freed = at::empty({100}, Floats()); }
  EXPECT_THROW(at::empty({1000}, Floats()), c10::OutOfMemoryError);
  const auto stats = at::accelerator::getDeviceStats(0);

  EXPECT_EQ(stats.allocation[0].allocated, 2);
  EXPECT_EQ(stats.allocated_bytes[0].current, 40);
  EXPECT_EQ(stats.allocated_bytes[0].peak, 440);
  EXPECT_EQ(stats.num_ooms, 1);
  EXPECT_EQ(at::accelerator::getMemoryInfo(0), (std::pair<size_t, size_t>(960, 1000)));

  at::accelerator::resetPeakStats(0);
  at::accelerator::resetAccumulatedStats(0);
  EXPECT_EQ(at::accelerator::getDeviceStats(0).allocated_bytes[0].peak, 40);
  EXPECT_EQ(at::accelerator::getDeviceStats(0).allocation[0].allocated, 0);
}

TEST_F(TestAcceleratorTest, TheBudgetRefusesWhatDoesNotFit) {
  TestAcceleratorState().byte_budget = 100;
  const at::Tensor kept = at::empty({20}, Floats());

  EXPECT_THAT(
      [&] { at::empty({6}, Floats()); },
      ThrowsMessage<c10::OutOfMemoryError>(
          AllOf(HasSubstr("24 bytes"), HasSubstr("of 100 bytes"), HasSubstr("20 bytes are free"))));
  EXPECT_EQ(state().live_bytes, 80);
  EXPECT_NO_THROW(at::empty({5}, Floats()));
}

TEST_F(TestAcceleratorTest, ThePlannedAllocationFailsAndNoOther) {
  FailAllocation(2);

  EXPECT_NO_THROW(at::empty({1}, Floats()));
  EXPECT_THROW(at::empty({1}, Floats()), c10::OutOfMemoryError);
  EXPECT_NO_THROW(at::empty({1}, Floats()));
  EXPECT_EQ(state().failures, 1);
}

TEST_F(TestAcceleratorTest, ThreadsShareOneCount) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) at::empty({8}, Floats());
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(state().allocations, 800);
  EXPECT_EQ(state().live_bytes, 0);
}

TEST_F(TestAcceleratorTest, FreshMemoryHoldsNaN) {
  EXPECT_TRUE(at::empty({3}, Floats()).isnan().all().item<bool>());
}

TEST_F(TestAcceleratorTest, TheHostCannotReadItsMemory) {
  const at::Tensor tensor = at::ones({3}, Floats());

  EXPECT_DEATH(
      {
        const volatile float* const data = tensor.const_data_ptr<float>();
        std::exit(data[0] == 1);
      },
      "");
}

TEST_F(TestAcceleratorTest, OperationsGiveTheCpusResults) {
  const at::Tensor a = at::randn({4, 6, 6}, at::kDouble);
  const at::Tensor spd = a.matmul(a.mT()) + at::eye(6, at::kDouble);
  const at::Tensor device = OnDevice(spd);
  const auto expect_same = [](const at::Tensor& of_device, const at::Tensor& of_cpu) {
    EXPECT_EQ(of_device.device().str(), kTestAccelerator);
    EXPECT_TRUE(at::equal(of_device.cpu(), of_cpu));
  };

  expect_same(device, spd);
  expect_same(device.matmul(device), spd.matmul(spd));
  expect_same(device.softmax(-1), spd.softmax(-1));
  expect_same(at::linalg_cholesky(device), at::linalg_cholesky(spd));
  expect_same(at::linalg_svdvals(device), at::linalg_svdvals(spd));
  expect_same(device.slice(1, 1, 5).transpose(0, 2).reshape({-1}),
              spd.slice(1, 1, 5).transpose(0, 2).reshape({-1}));
  expect_same(device.unfold(1, 3, 2), spd.unfold(1, 3, 2));
  expect_same(at::cat({device, device}, 1), at::cat({spd, spd}, 1));
  expect_same(device.to(at::kFloat), spd.to(at::kFloat));
  expect_same(device.mul(at::scalar_tensor(2.0)), spd.mul(2.0));
  const at::Tensor weight = at::randn({6, 1, 3}, at::kDouble);
  expect_same(at::conv1d(device, OnDevice(weight), {}, 1, 2, 1, 6),
              at::conv1d(spd, weight, {}, 1, 2, 1, 6));
  EXPECT_EQ(device.sum().item<double>(), spd.sum().item<double>());
}

TEST_F(TestAcceleratorTest, WorkInPlaceThroughAViewReachesItsTensor) {
  at::Tensor tensor = at::zeros({3, 3}, Floats());
  tensor.select(1, 2).add_(1);
  tensor.resize_({4, 3});

  EXPECT_TRUE(at::equal(tensor.slice(0, 0, 3).sum(0).cpu(), at::tensor({0.f, 0.f, 3.f})));
}

TEST_F(TestAcceleratorTest, OperandsOnDifferentDevicesAreAnError) {
  const at::Tensor host = at::ones({3});
  const at::Tensor device = OnDevice(host);
  const at::Tensor index = at::zeros({2}, at::kLong);

  EXPECT_THROW(device.add(host), c10::Error);
  EXPECT_THROW(at::matmul(host, device), c10::Error);
  EXPECT_THROW(at::cat({device, host}), c10::Error);
  EXPECT_THROW(device.index_select(0, index), c10::Error);
  EXPECT_THROW(device.index({index}), c10::Error);
  EXPECT_THROW(at::where(host > 0, device, device), c10::Error);
}

}  // namespace
}  // namespace ess::testing
