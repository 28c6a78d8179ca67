#include "server/linalg/number_buffer.h"

#include <algorithm>
#include <cstdint>

#include "gtest/gtest.h"

namespace ess::linalg {
namespace {

constexpr int64_t kMany = int64_t{3} << 18;  // 6 MiB.

uintptr_t AddressOf(const NumberBuffer& buffer) {
  return reinterpret_cast<uintptr_t>(buffer.data());
}

TEST(NumberBufferTest, IsEmptyAtFirst) {
  EXPECT_EQ(NumberBuffer().capacity(), 0);
  EXPECT_EQ(NumberBuffer().data(), nullptr);
}

TEST(NumberBufferTest, HasRoomForWhatWasAskedForAndIsAligned) {
  for (const int64_t count : {int64_t{1}, int64_t{7}, int64_t{1000}, kMany}) {
    NumberBuffer buffer;

    buffer.Reserve(count);

    ASSERT_GE(buffer.capacity(), count);
    EXPECT_EQ(AddressOf(buffer) % 64, 0u);
    std::fill_n(buffer.data(), buffer.capacity(), 1.5);  // All of it may be written.
    EXPECT_EQ(buffer.data()[count - 1], 1.5);
  }
}

TEST(NumberBufferTest, LargeOnesStartOnAHugePage) {
  NumberBuffer buffer;

  buffer.Reserve(kMany);

  EXPECT_EQ(AddressOf(buffer) % (uintptr_t{2} << 20), 0u);
}

TEST(NumberBufferTest, ASmallerRequestChangesNothing) {
  NumberBuffer buffer;
  buffer.Reserve(100);
  double* const data = buffer.data();
  data[99] = 3;
  const int64_t capacity = buffer.capacity();

  buffer.Reserve(capacity);
  buffer.Reserve(5);

  EXPECT_EQ(buffer.data(), data);
  EXPECT_EQ(buffer.capacity(), capacity);
  EXPECT_EQ(buffer.data()[99], 3);
}

TEST(NumberBufferTest, GrowsForALargerRequest) {
  NumberBuffer buffer;
  buffer.Reserve(8);

  buffer.Reserve(kMany);

  EXPECT_GE(buffer.capacity(), kMany);
  buffer.data()[kMany - 1] = 1;
  EXPECT_EQ(buffer.data()[kMany - 1], 1);
}

}  // namespace
}  // namespace ess::linalg
