#include "server/telemetry/metrics.h"

#include <set>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace ess::telemetry {
namespace {

using ::testing::Not;
using ::testing::StartsWith;

TEST(MetricsTest, NamesFollowThePrometheusRules) {
  auto check = [](const std::string& name, bool counter) {
    EXPECT_THAT(name, StartsWith("ess_"));
    EXPECT_THAT(name, Not(::testing::HasSubstr(":")));
    EXPECT_EQ(name.ends_with("_total"), counter) << name;
  };
#define ESS_CHECK_COUNTER(field, name, ...) check(name, true);
#define ESS_CHECK_GAUGE(field, name, ...) check(name, false);
#define ESS_CHECK_HISTOGRAM(field, name, ...) check(name, false);
  ESS_METRICS(ESS_CHECK_COUNTER, ESS_CHECK_GAUGE, ESS_CHECK_HISTOGRAM)
}

TEST(MetricsTest, CountsUnderTheGivenLabels) {
  Metrics metrics;

  metrics.requests.Increment({"m", "Profile", "OK"});
  metrics.requests.Increment({"m", "Profile", "OK"});

  for (const auto& family : metrics.collectable()->Collect()) {
    if (family.name != "ess_requests_total") continue;
    ASSERT_EQ(family.metric.size(), 1u);
    EXPECT_EQ(family.metric[0].counter.value, 2);
    std::set<std::string> labels;
    for (const auto& label : family.metric[0].label) labels.insert(label.name + "=" + label.value);
    EXPECT_EQ(labels, (std::set<std::string>{"model=m", "rpc=Profile", "code=OK"}));
    return;
  }
  FAIL() << "ess_requests_total is not exported";
}

TEST(MetricsTest, TakesARemovedSeriesOut) {
  Metrics metrics;
  metrics.model_bytes.Set({"m", "device"}, 1);

  metrics.model_bytes.Remove({"m", "device"});

  for (const auto& family : metrics.collectable()->Collect()) {
    if (family.name != "ess_model_bytes") continue;
    EXPECT_TRUE(family.metric.empty());
  }
}

TEST(MetricsTest, CountsItsOwnSeries) {
  Metrics metrics;
  metrics.tokens.Increment({"m"}, 5);

  const auto families = metrics.collectable()->Collect();

  // The counter and ess_metrics_series itself.
  ASSERT_EQ(families.back().name, "ess_metrics_series");
  EXPECT_EQ(families.back().metric[0].gauge.value, 2);
}

TEST(MetricsTest, LosesNothingToConcurrentIncrements) {
  Metrics metrics;
  std::vector<std::thread> threads;

  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics] {
      for (int i = 0; i < 1000; ++i) metrics.tokens.Increment({"m"});
    });
  }
  for (std::thread& thread : threads) thread.join();

  for (const auto& family : metrics.collectable()->Collect()) {
    if (family.name != "ess_tokens_total") continue;
    EXPECT_EQ(family.metric[0].counter.value, 4000);
  }
}

}  // namespace
}  // namespace ess::telemetry
