#include "server/telemetry/metrics.h"

#include <map>
#include <type_traits>

#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace ess::telemetry {
namespace {

template <typename Series>
prometheus::Family<Series>& MakeFamily(prometheus::Registry& registry, const char* name,
                                       const char* help) {
  auto builder = [] {
    if constexpr (std::is_same_v<Series, prometheus::Counter>) {
      return prometheus::BuildCounter();
    } else if constexpr (std::is_same_v<Series, prometheus::Gauge>) {
      return prometheus::BuildGauge();
    } else {
      return prometheus::BuildHistogram();
    }
  }();
  return builder.Name(name).Help(help).Register(registry);
}

// Adds the number of series to what the registry answers.
class CountedRegistry : public prometheus::Collectable {
 public:
  explicit CountedRegistry(std::shared_ptr<prometheus::Registry> registry)
      : registry_(std::move(registry)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families = registry_->Collect();
    size_t series = 1;
    for (const auto& family : families) {
      for (const auto& metric : family.metric) {
        // A histogram exports its buckets, a sum and a count.
        series += metric.histogram.bucket.empty() ? 1 : metric.histogram.bucket.size() + 2;
      }
    }
    prometheus::ClientMetric count;
    count.gauge.value = static_cast<double>(series);
    families.push_back({"ess_metrics_series",
                        "Series exported by /metrics",
                        prometheus::MetricType::Gauge,
                        {count}});
    return families;
  }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

}  // namespace

template <typename Series, size_t N>
MetricFamily<Series, N>::MetricFamily(prometheus::Registry& registry, const char* name,
                                      const char* help, std::array<const char*, N> label_names,
                                      std::vector<double> buckets)
    : label_names_(label_names),
      buckets_(std::move(buckets)),
      family_(MakeFamily<Series>(registry, name, help)) {}

template <typename Series, size_t N>
Series& MetricFamily<Series, N>::At(const Labels& labels) {
  std::map<std::string, std::string> named;
  for (size_t i = 0; i < N; ++i) named.emplace(label_names_[i], labels[i]);
  if constexpr (std::is_same_v<Series, prometheus::Histogram>) {
    return family_.Add(named, buckets_);
  } else {
    return family_.Add(named);
  }
}

template <typename Series, size_t N>
void MetricFamily<Series, N>::Remove(const Labels& labels) {
  family_.Remove(&At(labels));
}

template <size_t N>
void Counter<N>::Increment(const std::array<std::string, N>& labels, double amount) {
  this->At(labels).Increment(amount);
}

template <size_t N>
void Gauge<N>::Set(const std::array<std::string, N>& labels, double value) {
  this->At(labels).Set(value);
}

template <size_t N>
void Gauge<N>::Add(const std::array<std::string, N>& labels, double amount) {
  this->At(labels).Increment(amount);
}

template <size_t N>
void Histogram<N>::Observe(const std::array<std::string, N>& labels, double value) {
  this->At(labels).Observe(value);
}

#define ESS_INSTANTIATE(N)                               \
  template class MetricFamily<prometheus::Counter, N>;   \
  template class MetricFamily<prometheus::Gauge, N>;     \
  template class MetricFamily<prometheus::Histogram, N>; \
  template class Counter<N>;                             \
  template class Gauge<N>;                               \
  template class Histogram<N>;
ESS_INSTANTIATE(0)
ESS_INSTANTIATE(1)
ESS_INSTANTIATE(2)
ESS_INSTANTIATE(3)
ESS_INSTANTIATE(4)
ESS_INSTANTIATE(6)
#undef ESS_INSTANTIATE

namespace internal {
MetricRegistry::MetricRegistry() : registry_(std::make_shared<prometheus::Registry>()) {}
MetricRegistry::~MetricRegistry() = default;
}  // namespace internal

std::shared_ptr<prometheus::Collectable> Metrics::collectable() const {
  return std::make_shared<CountedRegistry>(registry_);
}

}  // namespace ess::telemetry
