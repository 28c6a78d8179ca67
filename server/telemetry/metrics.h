// The metrics as typed fields, made from the catalogue.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "server/telemetry/metric_catalogue.h"

namespace prometheus {
class Collectable;
class Counter;
class Gauge;
class Histogram;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace ess::telemetry {

// One metric: a family with N labels, whose values are given in the order of the catalogue.
// Thread-safe. A call looks its series up under a lock (about a microsecond).
template <typename Series, size_t N>
class MetricFamily {
 public:
  using Labels = std::array<std::string, N>;

  MetricFamily(prometheus::Registry& registry, const char* name, const char* help,
               std::array<const char*, N> label_names, std::vector<double> buckets = {});

  // Takes the series out of the answer.
  void Remove(const Labels& labels);

 protected:
  Series& At(const Labels& labels);

 private:
  const std::array<const char*, N> label_names_;
  const std::vector<double> buckets_;
  prometheus::Family<Series>& family_;
};

template <size_t N>
class Counter : public MetricFamily<prometheus::Counter, N> {
 public:
  using MetricFamily<prometheus::Counter, N>::MetricFamily;
  void Increment(const std::array<std::string, N>& labels, double amount = 1);
};

template <size_t N>
class Gauge : public MetricFamily<prometheus::Gauge, N> {
 public:
  using MetricFamily<prometheus::Gauge, N>::MetricFamily;
  void Set(const std::array<std::string, N>& labels, double value);
  void Add(const std::array<std::string, N>& labels, double amount);
};

template <size_t N>
class Histogram : public MetricFamily<prometheus::Histogram, N> {
 public:
  using MetricFamily<prometheus::Histogram, N>::MetricFamily;
  void Observe(const std::array<std::string, N>& labels, double value);
};

// Deduces N from a catalogue line.
template <typename... Names>
constexpr size_t CountOf(Names...) {
  return sizeof...(Names);
}

namespace internal {
// Owns the registry; a base class, so that it exists before the fields.
class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();

 protected:
  std::shared_ptr<prometheus::Registry> registry_;
};
}  // namespace internal

// All metrics of one server. Thread-safe.
class Metrics : public internal::MetricRegistry {
 public:
  static inline const std::vector<double> kSeconds = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
  static inline const std::vector<double> kJobSeconds = {1,    5,     15,    60,    300,    900,
                                                         3600, 14400, 43200, 86400, 259200, 604800};
  static inline const std::vector<double> kCounts = {1,   2,   4,   8,    16,   32,   64,
                                                     128, 256, 512, 1024, 4096, 16384};
  static inline const std::vector<double> kRatios = {0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4,
                                                     0.5,  0.6,  0.7,  0.8, 0.9, 1};

#define ESS_COUNTER(field, name, help, ...) \
  Counter<CountOf(__VA_ARGS__)> field{*registry_, name, help, {__VA_ARGS__}};
#define ESS_GAUGE(field, name, help, ...) \
  Gauge<CountOf(__VA_ARGS__)> field{*registry_, name, help, {__VA_ARGS__}};
#define ESS_HISTOGRAM(field, name, help, buckets, ...) \
  Histogram<CountOf(__VA_ARGS__)> field{*registry_, name, help, {__VA_ARGS__}, buckets};
  ESS_METRICS(ESS_COUNTER, ESS_GAUGE, ESS_HISTOGRAM)
#undef ESS_COUNTER
#undef ESS_GAUGE
#undef ESS_HISTOGRAM

  // For the exposition server: everything above, with ess_metrics_series.
  std::shared_ptr<prometheus::Collectable> collectable() const;
};

}  // namespace ess::telemetry
