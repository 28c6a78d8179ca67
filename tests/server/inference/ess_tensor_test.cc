#include "server/inference/ess_tensor.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gmock/gmock.h"

namespace ess::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::IsEmpty;
using ::testing::NanSensitiveFloatEq;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Two prompts, of 3 and 1 tokens; two layers, of heads 0, 1 and 1, 4; positions 0 and 2.
ProfilePlan Plan() {
  ProfilePlan plan;
  plan.lengths = {3, 1};
  plan.layers = {{.mixer = 0, .heads = {0, 1}}, {.mixer = 1, .heads = {1, 4}}};
  plan.positions = {{0, 2}, {0}};
  plan.all_positions = {0, 2};
  return plan;
}

// Values of one measure for `head_count` heads.
OperatorEss Ess(std::vector<float> values) {
  OperatorEss ess;
  ess.values = {values};
  ess.certain = {std::vector<uint8_t>(values.size(), 1)};
  return ess;
}

std::vector<float> Floats(const std::string& raw) {
  std::vector<float> values(raw.size() / sizeof(float));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

auto Is(std::vector<float> values) {
  std::vector<::testing::Matcher<float>> matchers;
  for (const float value : values) matchers.push_back(NanSensitiveFloatEq(value));
  return ::testing::ElementsAreArray(matchers);
}

TEST(EssTensorTest, TheHeadAxisIsTheUnionOfTheLayersHeads) {
  EXPECT_THAT(HeadAxis(Plan()), ElementsAre(0, 1, 4));
}

TEST(EssTensorTest, PiecesGoToTheirPlaceAndTheRestIsNan) {
  const ProfilePlan plan = Plan();
  EssTensor tensor(plan, HeadAxis(plan), /*measure_count=*/1, 0, 2, /*certify=*/true);
  const OperatorEss both = Ess({1, 2, 3, 4});
  const OperatorEss one = Ess({7, 8});
  const OperatorEss shorter = Ess({9});

  tensor.Add({.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = both});
  tensor.Add({.layer = 1, .prompt = 0, .first_head = 1, .head_count = 1, .ess = one});
  tensor.Add({.layer = 1, .prompt = 1, .first_head = 0, .head_count = 1, .ess = shorter});

  EXPECT_THAT(tensor.shape(), ElementsAre(2, 1, 2, 3, 2));
  EXPECT_THAT(Floats(tensor.TakeValues()),
              Is({1,    2,    3,    4,    kNan, kNan,  // Prompt 0, layer 0.
                  kNan, kNan, kNan, kNan, 7,    8,     // Layer 1: head 4.
                  kNan, kNan, kNan, kNan, kNan, kNan,  // Prompt 1, layer 0.
                  kNan, kNan, 9,    kNan, kNan, kNan}));
  EXPECT_EQ(tensor.TakeCertain(),
            std::string("\1\1\1\1\0\0\0\0\0\0\1\1\0\0\0\0\0\0\0\0\1\0\0\0", 24));
}

TEST(EssTensorTest, ALayerIsCompleteWithAllHeadsOfAllPrompts) {
  const ProfilePlan plan = Plan();
  EssTensor tensor(plan, HeadAxis(plan), /*measure_count=*/1, 1, 1, /*certify=*/false);
  const OperatorEss both = Ess({1, 2, 3, 4});
  const OperatorEss shorter = Ess({5});

  tensor.Add({.layer = 1, .prompt = 0, .first_head = 0, .head_count = 2, .ess = both});
  tensor.Add({.layer = 1, .prompt = 1, .first_head = 0, .head_count = 1, .ess = shorter});
  EXPECT_FALSE(tensor.HasAll(1));
  tensor.Add({.layer = 1, .prompt = 1, .first_head = 1, .head_count = 1, .ess = shorter});

  EXPECT_TRUE(tensor.HasAll(1));
  EXPECT_THAT(tensor.shape(), ElementsAre(2, 1, 1, 3, 2));
  EXPECT_THAT(tensor.TakeCertain(), IsEmpty());
}

TEST(EssTensorTest, ACountThatOverflowsIsTheLargest) {
  EXPECT_EQ(EssTensor::ElementCount({2, 3, 4, 5, 6}), 720);
  EXPECT_EQ(EssTensor::ElementCount({int64_t{1} << 40, int64_t{1} << 40, 1, 1, 1}),
            std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace ess::inference
