// Answers for heads whose operator does not depend on the input, such as filters without gates:
// every prompt of one length has the same.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/ess/ess_options.h"
#include "server/ess/head_measures.h"
#include "server/ess/measure.h"

namespace ess {

// Everything an answer depends on, as bytes: equal keys, equal answers.
std::string CacheKey(std::span<const double> operator_data, double feature_epsilon,
                     std::span<const int64_t> positions, std::span<const Measure> measures,
                     const EssOptions& options);

// Keeps the answers used last, up to a number of bytes of keys and values. Thread-safe.
class EssCache {
 public:
  explicit EssCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  std::optional<HeadEss> Find(const std::string& key);
  // An answer larger than the cache is not kept.
  void Insert(std::string key, const HeadEss& ess);

 private:
  struct Entry {
    std::string key;
    HeadEss ess;
    int64_t bytes;
  };

  const int64_t max_bytes_;
  absl::Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // The one used last first.
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ess
