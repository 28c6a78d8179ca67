#include "server/inference/raw_tensor.h"

#include <cstring>
#include <limits>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::inference {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// The count of a shape of these sizes.
absl::StatusOr<int64_t> Count(std::vector<int64_t> shape) { return ElementCount("T", shape); }

TEST(RawTensorTest, TheCountIsTheProductOfTheShape) {
  EXPECT_EQ(*Count({}), 1);
  EXPECT_EQ(*Count({3, 4}), 12);
  EXPECT_EQ(*Count({3, 0, 4}), 0);
  EXPECT_EQ(*Count({kMost}), kMost);
}

TEST(RawTensorTest, ANegativeSizeIsNamed) {
  EXPECT_THAT(Count({2, -1}), StatusIs(kInvalid, HasSubstr("T: the shape [2, -1]")));
  EXPECT_THAT(Count({std::numeric_limits<int64_t>::min()}), StatusIs(kInvalid, HasSubstr("T: ")));
}

TEST(RawTensorTest, AProductThatOverflowsIsRefused) {
  EXPECT_THAT(Count({int64_t{1} << 32, int64_t{1} << 32}), StatusIs(kInvalid, HasSubstr("2^63")));
  EXPECT_THAT(Count({kMost, kMost, kMost}), StatusIs(kInvalid, HasSubstr("T: ")));
  // The product of all is zero modulo 2^64.
  EXPECT_THAT(Count({int64_t{1} << 32, int64_t{1} << 31, 2}), StatusIs(kInvalid, HasSubstr("T: ")));
}

TEST(RawTensorTest, ALongShapeIsCutInMessages) {
  EXPECT_THAT(ShapeText(std::vector<int64_t>(10'000, 7)),
              ::testing::AllOf(HasSubstr("10000 sizes"), ::testing::SizeIs(::testing::Lt(100u))));
}

TEST(RawTensorTest, IntegersAreReadAtAnyAlignment) {
  const int32_t small[] = {-1, 7};
  const int64_t large[] = {std::numeric_limits<int64_t>::min(), 9};
  std::string raw("x");
  raw.append(reinterpret_cast<const char*>(small), sizeof(small));
  std::string raw64("xyz");
  raw64.append(reinterpret_cast<const char*>(large), sizeof(large));

  EXPECT_THAT(*ReadIntegers("T", "INT32", 2, std::string_view(raw).substr(1)), ElementsAre(-1, 7));
  EXPECT_THAT(*ReadIntegers("T", "INT64", 2, std::string_view(raw64).substr(3)),
              ElementsAre(std::numeric_limits<int64_t>::min(), 9));
}

TEST(RawTensorTest, AnotherNumberOfBytesIsRefusedBeforeAnythingIsAllocated) {
  EXPECT_THAT(
      ReadIntegers("T", "INT64", 2, std::string(15, 'x')),
      StatusIs(kInvalid, HasSubstr("T: 15 bytes of raw contents; 2 elements of INT64 take 16")));
  EXPECT_THAT(ReadIntegers("T", "INT32", kMost, "x"), StatusIs(kInvalid, HasSubstr("T: ")));
  EXPECT_THAT(ReadIntegers("T", "INT32", int64_t{1} << 40, std::string(8, 'x')),
              StatusIs(kInvalid, HasSubstr("T: ")));
}

TEST(RawTensorTest, AnotherDatatypeIsNamed) {
  EXPECT_THAT(ReadIntegers("T", "FP32", 1, "abcd"),
              StatusIs(kInvalid, HasSubstr("'FP32'; INT32 or INT64")));
  EXPECT_THAT(ReadIntegers("T", std::string(4096, 'x'), 1, "abcd").status().message().size(),
              ::testing::Lt(200u));
}

TEST(RawTensorTest, BytesComeBackAsTheyWerePacked) {
  const std::vector<std::string> texts = {"", "one", std::string("\0\xff", 2)};

  const std::string raw = PackBytes(texts);

  EXPECT_EQ(raw.size(), 4 * 3 + 5u);
  EXPECT_THAT(*ReadBytes("T", 3, raw), ElementsAre(texts[0], texts[1], texts[2]));
  EXPECT_THAT(*ReadBytes("T", 0, ""), IsEmpty());
}

TEST(RawTensorTest, ALengthBeyondTheEndIsRefused) {
  EXPECT_THAT(
      ReadBytes("T", 1, std::string("\xff\xff\xff\xff", 4)),
      StatusIs(kInvalid, HasSubstr("element 0 says that it has 4294967295 bytes; 0 are left")));
  std::string raw = PackBytes(std::vector<std::string>{"one", "two"});
  raw.pop_back();
  EXPECT_THAT(ReadBytes("T", 2, raw), StatusIs(kInvalid, HasSubstr("element 1")));
}

TEST(RawTensorTest, TooFewAndTooManyElementsAreRefused) {
  const std::string raw = PackBytes(std::vector<std::string>{"one", "two"});

  EXPECT_THAT(ReadBytes("T", 1, raw), StatusIs(kInvalid, HasSubstr("7 bytes")));
  EXPECT_THAT(ReadBytes("T", 3, raw), StatusIs(kInvalid, HasSubstr("end after 2 elements")));
  EXPECT_THAT(ReadBytes("T", kMost, raw), StatusIs(kInvalid, HasSubstr("T: ")));
  EXPECT_THAT(ReadBytes("T", 1, std::string(3, '\0')), StatusIs(kInvalid, HasSubstr("T: ")));
}

}  // namespace
}  // namespace ess::inference
