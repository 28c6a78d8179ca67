#include "server/pipeline/profile_estimate.h"

#include "gmock/gmock.h"
#include "server/ess/ess_estimate.h"

namespace ess {
namespace {

using ::testing::ElementsAre;

// Two layers of attention, one recurrence.
models::ModelDescription SmallModel() {
  models::ModelDescription model{
      .parameters = 1'000'000, .vocabulary_size = 100, .hidden_size = 64};
  for (const char* name : {"000", "001"}) {
    model.mixers.push_back({.name = name,
                            .operator_class = "DenseOperator",
                            .head_count = 4,
                            .channels = {16},
                            .state_size = operators::StateSize::Growing()});
  }
  model.mixers.push_back({.name = "002",
                          .operator_class = "DiagonalRecurrence",
                          .head_count = 2,
                          .channels = {32},
                          .state_size = operators::StateSize::Constant(16)});
  return model;
}

struct Case {
  explicit Case(std::vector<int64_t> lengths) {
    for (const int64_t length : lengths) {
      plan.lengths.push_back(length);
      auto& positions = plan.positions.emplace_back(length);
      for (int64_t i = 0; i < length; ++i) positions[i] = i;
      if (positions.size() > plan.all_positions.size()) plan.all_positions = positions;
    }
    plan.layers = {{.mixer = 0, .heads = {0, 1, 2, 3}},
                   {.mixer = 1, .heads = {0, 1, 2, 3}},
                   {.mixer = 2, .heads = {0, 1}}};
    job.measures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3}};
  }
  ProfileEstimate Estimate(int threads = 2) const {
    return EstimateProfile(job, plan, SmallModel(), threads);
  }
  ProfileJob job;
  ProfilePlan plan;
};

TEST(ProfileEstimateTest, NamesARoutePerOperatorClassAndMeasure) {
  Case c({64, 16});
  c.job.measures.push_back({.kind = Measure::Kind::kFrobeniusNorm});

  const ProfileEstimate estimate = c.Estimate();

  ASSERT_EQ(estimate.routes.size(), 4u);
  for (const RouteEstimate& route : estimate.routes) {
    EXPECT_FALSE(route.route.empty());
    EXPECT_TRUE(route.operator_class == "DenseOperator" ||
                route.operator_class == "DiagonalRecurrence");
  }
  EXPECT_EQ(estimate.routes[0].measure, 0);
  EXPECT_EQ(estimate.routes[1].measure, 1);
}

TEST(ProfileEstimateTest, GrowsWithLengthPromptsMeasuresAndHeads) {
  const ProfileEstimate base = Case({256}).Estimate();
  EXPECT_GT(base.ess_seconds, 0);
  EXPECT_GT(base.forward_seconds, 0);
  EXPECT_GT(base.peak_bytes, 2 * 4 * 256 * 256 * 8);  // Two threads' scratch.

  const ProfileEstimate longer = Case({1024}).Estimate();
  EXPECT_GT(longer.ess_seconds, 30 * base.ess_seconds);
  EXPECT_GT(longer.peak_bytes, 8 * base.peak_bytes);

  const ProfileEstimate more = Case({256, 256, 256}).Estimate();
  EXPECT_NEAR(more.ess_seconds, 3 * base.ess_seconds, 1e-9);
  EXPECT_NEAR(more.forward_seconds, 3 * base.forward_seconds, 1e-9);

  Case measures({256});
  measures.job.measures.push_back({.kind = Measure::Kind::kTolerance, .value = 1e-2});
  EXPECT_GT(measures.Estimate().ess_seconds, base.ess_seconds);

  Case heads({256});
  for (PlannedLayer& layer : heads.plan.layers) layer.heads = {0};
  EXPECT_LT(heads.Estimate().ess_seconds, base.ess_seconds);
}

TEST(ProfileEstimateTest, EndsTheForwardPassWithTheLastSelectedLayer) {
  Case first({256});
  first.plan.layers.resize(1);

  EXPECT_NEAR(first.Estimate().forward_seconds, Case({256}).Estimate().forward_seconds / 3, 1e-9);
}

TEST(ProfileEstimateTest, ThreadsShareTheHeads) {
  const Case c({256});
  EXPECT_NEAR(c.Estimate(1).ess_seconds, 2 * c.Estimate(2).ess_seconds, 1e-9);
  // Three threads take four heads in two rounds, as two do.
  Case four({256});
  four.plan.layers.resize(2);
  EXPECT_NEAR(four.Estimate(3).ess_seconds, four.Estimate(2).ess_seconds, 1e-9);
}

TEST(EssEstimateTest, MeasuresItsSpeedOnce) {
  const double speed = FloatSpeed();
  EXPECT_GT(speed, 1e8);
  EXPECT_LT(speed, 1e13);
  EXPECT_EQ(FloatSpeed(), speed);
}

}  // namespace
}  // namespace ess
