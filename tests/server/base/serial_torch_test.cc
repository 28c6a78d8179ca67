#include "server/base/serial_torch.h"

#include <ATen/Parallel.h>

#include <thread>

#include "gtest/gtest.h"

namespace ess {
namespace {

// Threads that LibTorch would use on a fresh thread.
int ThreadsElsewhere() {
  int threads = 0;
  std::thread([&threads] { threads = at::get_num_threads(); }).join();
  return threads;
}

TEST(SerialTorchTest, LimitsItsOwnThreadAndNoOther) {
  at::set_num_threads(2);
  {
    const SerialTorch serial;
    EXPECT_EQ(at::get_num_threads(), 1);
    EXPECT_EQ(ThreadsElsewhere(), 2);
  }
  EXPECT_EQ(at::get_num_threads(), 2);
}

}  // namespace
}  // namespace ess
