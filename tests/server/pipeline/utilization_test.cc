#include "server/pipeline/utilization.h"

#include "gtest/gtest.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace ess {
namespace {

// Values of one series, by the metric's name and the layer label.
double SampleOf(const telemetry::Metrics& metrics, const std::string& name,
                const std::string& layer) {
  for (const auto& family : metrics.collectable()->Collect()) {
    if (family.name != name) continue;
    for (const auto& series : family.metric) {
      for (const auto& label : series.label) {
        if (label.name == "layer" && label.value == layer) {
          return family.type == prometheus::MetricType::Histogram ? series.histogram.sample_sum
                                                                  : series.counter.value;
        }
      }
    }
  }
  return -1;
}

// One layer with two heads of 3 and 1 channels, one prompt of 3 tokens and one of 1.
struct Case {
  Case() {
    model.mixers = {{.name = "000", .head_count = 2, .channels = {3, 1}}};
    plan = {.token_ids = {{1, 2, 3}, {1}},
            .lengths = {3, 1},
            .layers = {{.mixer = 0, .heads = {0, 1}}},
            .positions = {{0, 1, 2}, {0}},
            .all_positions = {0, 1, 2}};
    job.measures = {measure};
  }

  const Measure measure = {.kind = Measure::Kind::kTolerance, .value = 1e-3};
  models::ModelDescription model;
  ProfilePlan plan;
  ProfileJob job;
  telemetry::Metrics metrics;
};

TEST(UtilizationTest, IsTheRatioOfSumsWeightedByChannels) {
  Case c;
  Utilization utilization(c.job, c.plan, c.model, c.measure);
  const OperatorEss ess{.values = {{0, 1, 2, 0, 1, 0}}, .noise_floors = {}, .routes = {}};

  utilization.Add({.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess});
  utilization.Observe(c.metrics, "m", 10);

  // ESS: 3 (1 + 2) + 1 (1 + 0) = 10; TSS: (3 + 1) (1 + 2) = 12.
  EXPECT_DOUBLE_EQ(SampleOf(c.metrics, "ess_effective_state_size_sum_total", "000"), 10);
  EXPECT_DOUBLE_EQ(SampleOf(c.metrics, "ess_state_size_sum_total", "000"), 12);
  EXPECT_DOUBLE_EQ(SampleOf(c.metrics, "ess_state_utilization_ratio", "000"), 10.0 / 12);
}

TEST(UtilizationTest, DoesNotObserveOneTokenPrompts) {
  Case c;
  Utilization utilization(c.job, c.plan, c.model, c.measure);
  const OperatorEss ess{.values = {{0, 0}}, .noise_floors = {}, .routes = {}};

  utilization.Add({.layer = 0, .prompt = 1, .first_head = 0, .head_count = 2, .ess = ess});
  utilization.Observe(c.metrics, "m", 10);

  EXPECT_EQ(SampleOf(c.metrics, "ess_observations_total", "000"), -1);
}

TEST(UtilizationTest, DoesNotObserveJobsWithoutTheMetricsMeasure) {
  Case c;
  Utilization utilization(c.job, c.plan, c.model, {.kind = Measure::Kind::kEntropy});
  const OperatorEss ess{.values = {{0, 1, 2, 0, 1, 0}}, .noise_floors = {}, .routes = {}};

  utilization.Add({.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess});
  utilization.Observe(c.metrics, "m", 10);

  EXPECT_EQ(SampleOf(c.metrics, "ess_observations_total", "000"), -1);
}

TEST(UtilizationTest, DoesNotObserveJobsWithAHorizon) {
  Case c;
  c.job.options.horizon = 2;
  Utilization utilization(c.job, c.plan, c.model, c.measure);
  const OperatorEss ess{.values = {{0, 1, 2, 0, 1, 0}}, .noise_floors = {}, .routes = {}};

  utilization.Add({.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess});
  utilization.Observe(c.metrics, "m", 10);

  EXPECT_EQ(SampleOf(c.metrics, "ess_observations_total", "000"), -1);
}

TEST(UtilizationTest, HasNoSeriesForAModelWithMoreLayersThanAllowed) {
  Case c;
  Utilization utilization(c.job, c.plan, c.model, c.measure);
  const OperatorEss ess{.values = {{0, 1, 2, 0, 1, 0}}, .noise_floors = {}, .routes = {}};

  utilization.Add({.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess});
  utilization.Observe(c.metrics, "m", 0);

  EXPECT_EQ(SampleOf(c.metrics, "ess_observations_total", "000"), -1);
}

}  // namespace
}  // namespace ess
