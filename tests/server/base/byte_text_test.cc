#include "server/base/byte_text.h"

#include "gtest/gtest.h"

namespace ess {
namespace {

TEST(ByteTextTest, ChoosesTheUnit) {
  EXPECT_EQ(ByteText(0), "0 bytes");
  EXPECT_EQ(ByteText(1023), "1023 bytes");
  EXPECT_EQ(ByteText(1536), "1.5 KiB");
  EXPECT_EQ(ByteText(int64_t{64} << 20), "64.0 MiB");
  EXPECT_EQ(ByteText(int64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(ByteText(int64_t{5000} << 40), "5000.0 TiB");
}

}  // namespace
}  // namespace ess
