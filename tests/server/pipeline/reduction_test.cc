#include "server/pipeline/reduction.h"

#include <cmath>

#include "gmock/gmock.h"

namespace ess {
namespace {

using ::testing::ElementsAre;

const Measure kCount = {.kind = Measure::Kind::kTolerance, .value = 1};
const Measure kPair = {.kind = Measure::Kind::kSingularValues, .count = 2};

TEST(ReductionTest, ShapesLackTheReducedAxis) {
  EXPECT_THAT(ValueShape(Reduction::kNone, 3, 5, kCount), ElementsAre(3, 5));
  EXPECT_THAT(ValueShape(Reduction::kHeads, 3, 5, kCount), ElementsAre(5));
  EXPECT_THAT(ValueShape(Reduction::kPositions, 3, 5, kCount), ElementsAre(3));
  EXPECT_THAT(ValueShape(Reduction::kNone, 3, 5, kPair), ElementsAre(3, 5, 2));
  EXPECT_THAT(ValueShape(Reduction::kHeads, 3, 5, kPair), ElementsAre(5, 2));
  EXPECT_THAT(ValueShape(Reduction::kPositions, 3, 5, kPair), ElementsAre(3, 2));
}

TEST(ReductionTest, CountsAreTheProductsOfTheShapes) {
  for (const Reduction reduction : {Reduction::kNone, Reduction::kHeads, Reduction::kPositions}) {
    for (const Measure& measure : {kCount, kPair}) {
      int64_t product = 1;
      for (const int64_t size : ValueShape(reduction, 3, 5, measure)) product *= size;
      EXPECT_EQ(ValueCount(reduction, 3, 5, measure), product);
      if (reduction != Reduction::kHeads) {
        EXPECT_EQ(ValuesPerHead(reduction, 5, measure) * 3, product);
      }
    }
  }
}

// Two heads at positions 0, 2, 3; singular values in pairs.
OperatorEss TwoHeads() {
  return {.values = {{0, 1, 4, 0, 2, 2}, {0, 0, 5, 1, 7, 3, 0, 0, 9, 2, 1, 4}},
          .certain = {{1, 1, 1, 1, 0, 1}, {1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1}},
          .noise_floors = {0, 0},
          .routes = {"", ""}};
}

TEST(ReductionTest, MeansOverPositionsLeaveOutPositionZero) {
  const std::vector<Measure> measures = {kCount, kPair};
  const OperatorEss means = MeanOverPositions(TwoHeads(), measures, std::vector<int64_t>{0, 2, 3});

  EXPECT_THAT(means.values[0], ElementsAre(2.5f, 2));
  EXPECT_THAT(means.values[1], ElementsAre(6, 2, 5, 3));
  EXPECT_THAT(means.certain[0], ElementsAre(1, 0));
  EXPECT_THAT(means.certain[1], ElementsAre(1, 0, 1, 1));
}

TEST(ReductionTest, MeansOverPositionsCountAllWhenZeroIsNotSelected) {
  const std::vector<Measure> measures = {kCount, kPair};
  const OperatorEss means = MeanOverPositions(TwoHeads(), measures, std::vector<int64_t>{1, 2, 3});

  EXPECT_FLOAT_EQ(means.values[0][0], 5.0f / 3);
  EXPECT_FLOAT_EQ(means.values[1][3], 2);
}

TEST(ReductionTest, MeansOverNoPositionAreNotANumber) {
  const std::vector<Measure> measures = {kCount, kPair};
  OperatorEss one{.values = {{0, 0}, {0, 0, 0, 0}}, .certain = {}, .noise_floors = {0, 0}};
  for (const std::vector<int64_t>& positions : {std::vector<int64_t>{0}, std::vector<int64_t>{}}) {
    if (positions.empty()) one.values = {{}, {}};
    const OperatorEss means = MeanOverPositions(one, measures, positions);
    ASSERT_EQ(means.values[0].size(), 2u);
    ASSERT_EQ(means.values[1].size(), 4u);
    for (const auto& values : means.values) {
      for (const float value : values) EXPECT_TRUE(std::isnan(value));
    }
    EXPECT_TRUE(means.certain.empty());
  }
}

TEST(ReductionTest, MeansOverHeadsAreWeightedHoweverTheyAreGrouped) {
  MeanOverHeads together;
  together.Add(TwoHeads(), std::vector<double>{3, 1});
  const OperatorEss expected = together.Take();
  EXPECT_THAT(expected.values[0], ElementsAre(0, 1.25f, 3.5f));
  EXPECT_THAT(expected.certain[0], ElementsAre(1, 0, 1));
  EXPECT_THAT(expected.certain[1], ElementsAre(0, 0, 1, 1, 1, 0));

  const OperatorEss both = TwoHeads();
  for (int h = 0; h < 2; ++h) {
    OperatorEss one{.noise_floors = {0}};
    for (const auto& values : both.values) {
      const auto half = values.begin() + h * values.size() / 2;
      one.values.emplace_back(half, half + values.size() / 2);
    }
    for (const auto& certain : both.certain) {
      const auto half = certain.begin() + h * certain.size() / 2;
      one.certain.emplace_back(half, half + certain.size() / 2);
    }
    together.Add(one, std::vector<double>{h == 0 ? 3.0 : 1.0});
  }
  const OperatorEss grouped = together.Take();
  EXPECT_EQ(grouped.values, expected.values);
  EXPECT_EQ(grouped.certain, expected.certain);
}

TEST(ReductionTest, MeansOverHeadsOfOneOperatorForgetTheOneBefore) {
  MeanOverHeads mean;
  mean.Add({.values = {{5, 7}}, .noise_floors = {0}}, std::vector<double>{2});
  mean.Take();
  mean.Add({.values = {{1, 3, 4}}, .noise_floors = {0}}, std::vector<double>{9});

  EXPECT_THAT(mean.Take().values[0], ElementsAre(1, 3, 4));
}

}  // namespace
}  // namespace ess
