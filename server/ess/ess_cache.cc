#include "server/ess/ess_cache.h"

#include <string_view>

namespace ess {
namespace {

template <typename Number>
void AppendBytes(std::span<const Number> numbers, std::string& key) {
  const int64_t count = static_cast<int64_t>(numbers.size());
  key.append(reinterpret_cast<const char*>(&count), sizeof(count));
  key.append(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
}

int64_t BytesOf(const std::string& key, const HeadEss& ess) {
  size_t bytes = key.size();
  for (const auto& values : ess.values) bytes += values.size() * sizeof(float);
  for (const auto& certain : ess.certain) bytes += certain.size();
  return static_cast<int64_t>(bytes);
}

}  // namespace

std::string CacheKey(std::span<const double> operator_data, double feature_epsilon,
                     std::span<const int64_t> positions, std::span<const Measure> measures,
                     const EssOptions& options) {
  std::string key;
  AppendBytes(operator_data, key);
  AppendBytes(std::span<const double>(&feature_epsilon, 1), key);
  AppendBytes(positions, key);
  for (const Measure& measure : measures) key += FormatMeasure(measure) + ",";
  key += std::to_string(options.horizon.value_or(0));
  key += options.certify ? "c" : "-";
  return key;
}

std::optional<HeadEss> EssCache::Find(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found->second);
  return entries_.front().ess;
}

void EssCache::Insert(std::string key, const HeadEss& ess) {
  const int64_t bytes = BytesOf(key, ess);
  absl::MutexLock lock(&mutex_);
  if (bytes > max_bytes_ || by_key_.contains(key)) return;
  while (bytes_ + bytes > max_bytes_) {
    bytes_ -= entries_.back().bytes;
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({std::move(key), ess, bytes});
  by_key_.emplace(entries_.front().key, entries_.begin());
  bytes_ += bytes;
}

}  // namespace ess
