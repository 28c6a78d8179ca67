#include "server/ess/ess_estimate.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "tests/support/expect_ess.h"
#include "tests/support/operator_variants.h"

namespace ess {
namespace {

using ::ess::operators::StateSize;
using ::ess::testing::AllOperatorVariants;
using ::ess::testing::EveryMeasure;
using ::ess::testing::IsOk;
using ::ess::testing::OperatorVariant;
using ::ess::testing::Range;
using Kind = Measure::Kind;

constexpr Measure kTolerance{.kind = Kind::kTolerance, .value = 1e-3};
constexpr Measure kEntropy{.kind = Kind::kEntropy};
constexpr Measure kRelative{.kind = Kind::kRelative, .value = 1e-2};

EssEstimate Estimate(const OperatorShape& shape, const std::vector<Measure>& measures,
                     const EssOptions& options = {}) {
  return EstimateEss(shape, Range(shape.length), measures, options);
}

// A shape of each class, with a state of 48 where it has one.
std::vector<OperatorShape> Shapes(int64_t length) {
  std::vector<OperatorShape> shapes = {{.class_name = "DenseOperator",
                                        .head_count = 4,
                                        .length = length,
                                        .state_size = StateSize::Growing()}};
  for (const char* name : {"DiagonalRecurrence", "DeltaRecurrence", "DiagonalPlusRankOne",
                           "GeneralRecurrence", "SelectiveScan"}) {
    shapes.push_back({.class_name = name,
                      .head_count = 4,
                      .length = length,
                      .state_size = StateSize::Constant(48)});
  }
  for (const char* name : {"BandedOperator", "Convolution"}) {
    shapes.push_back({.class_name = name,
                      .head_count = 4,
                      .length = length,
                      .state_size = StateSize::GrowingUpTo(48)});
  }
  return shapes;
}

TEST(EssEstimateTest, LongerOperatorsCostMore) {
  for (size_t s = 0; s < Shapes(1).size(); ++s) {
    EssEstimate before = Estimate(Shapes(32)[s], {kTolerance, kEntropy});
    for (int64_t length = 64; length <= 8192; length *= 2) {
      const EssEstimate estimate = Estimate(Shapes(length)[s], {kTolerance, kEntropy});
      const std::string where =
          std::string(Shapes(1)[s].class_name) + " of length " + std::to_string(length);
      EXPECT_GT(estimate.flops, before.flops) << where;
      EXPECT_GE(estimate.scratch_bytes, before.scratch_bytes / 8) << where;
      before = estimate;
    }
  }
}

TEST(EssEstimateTest, MoreQuestionsCostMore) {
  for (const OperatorShape& shape : Shapes(1024)) {
    const double one = Estimate(shape, {kTolerance}).flops;
    const double two = Estimate(shape, {kTolerance, kTolerance}).flops;
    const double three = Estimate(shape, {kTolerance, kTolerance, kTolerance}).flops;
    EXPECT_LT(Estimate(shape, {}).flops, one) << shape.class_name;
    EXPECT_LT(one, two) << shape.class_name;
    EXPECT_NEAR(three - two, two - one, 1e-6 * three) << shape.class_name;
    EXPECT_LT(one, Estimate(shape, {kTolerance, kEntropy}).flops) << shape.class_name;
    EXPECT_LT(one, Estimate(shape, {kTolerance, kRelative}).flops) << shape.class_name;
    EXPECT_LT(one, Estimate(shape, {kTolerance}, {.certify = true}).flops) << shape.class_name;
    const double by_svd = Estimate(shape, {{.kind = Kind::kSingularValues, .count = 1}}).flops;
    EXPECT_LT(Estimate(shape, {}).flops, by_svd) << shape.class_name;
    EXPECT_LT(one, Estimate(shape, {kTolerance}, {.horizon = 100}).flops) << shape.class_name;
  }
}

TEST(EssEstimateTest, LargerStatesCostMore) {
  for (OperatorShape shape : Shapes(4096)) {
    if (shape.state_size.kind == StateSize::Kind::kGrowing) continue;
    double before = 0;
    for (const int64_t state : {8, 16, 64, 128, 512, 1024}) {
      shape.state_size.size = state;
      const double flops = Estimate(shape, {kTolerance, kEntropy}).flops;
      EXPECT_GT(flops, before) << shape.class_name << " of state " << state;
      before = flops;
    }
  }
}

class EssEstimateRoutesTest : public ::testing::TestWithParam<OperatorVariant> {};

TEST_P(EssEstimateRoutesTest, RoutesAreThoseThatTheEngineTakes) {
  WorkerPool pool(1);
  for (const int64_t length : {5, 60}) {
    const auto op = GetParam().Make(5, length, 3);
    const bool recurrence = op->state_size().kind == StateSize::Kind::kConstant;
    const std::vector<Measure> measures = EveryMeasure(1e-2, 1e-2, recurrence);
    for (const EssOptions& options : {EssOptions{}, EssOptions{.horizon = 3}}) {
      const auto ess = EssEngine(pool).Compute(*op, Range(5), Range(length), measures, options,
                                               CancellationToken());
      ASSERT_THAT(ess, IsOk());
      const EssEstimate estimate = EstimateEss(ShapeOf(*op), Range(length), measures, options);
      ASSERT_EQ(estimate.routes.size(), measures.size());
      for (size_t m = 0; m < measures.size(); ++m) {
        const std::string expected = estimate.routes[m].Name();
        // Positions in doubt may go by SVD, which no estimate can know.
        const bool count = measures[m].value > 0;
        EXPECT_EQ(count ? ess->routes[m].substr(0, expected.size()) : ess->routes[m], expected)
            << FormatMeasure(measures[m]) << " of length " << length;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllVariants, EssEstimateRoutesTest,
                         ::testing::ValuesIn(AllOperatorVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ess
