#include "server/base/available_memory.h"

#include <sys/sysinfo.h>

#include "gtest/gtest.h"

namespace ess {
namespace {

TEST(AvailableMemoryTest, IsSomeOfWhatTheMachineHas) {
  struct sysinfo machine;
  ASSERT_EQ(sysinfo(&machine), 0);

  EXPECT_GT(AvailableMemoryBytes(), 0);
  EXPECT_LE(AvailableMemoryBytes(), static_cast<int64_t>(machine.totalram * machine.mem_unit));
}

}  // namespace
}  // namespace ess
