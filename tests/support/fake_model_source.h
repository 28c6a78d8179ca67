// Weights of made-up sizes, for tests of the residency.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/residency/model_source.h"

namespace ess::testing {

// Thread-safe. Every model has 100 bytes on device "fake" and loads at once, unless told otherwise.
class FakeModelSource : public residency::ModelSource {
 public:
  explicit FakeModelSource(int64_t budget) : budget_(budget) {}

  void SetBytes(const std::string& name, int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    bytes_[name] = bytes;
  }
  // OK: loads work again.
  void SetFailure(const std::string& name, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    failures_[name] = status;
  }
  // Loads of this model wait until Open.
  void Close(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    closed_.insert(name);
  }
  void Open(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    closed_.erase(name);
  }

  // Measure waits until ShowSize.
  void HideSize(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    hidden_.insert(name);
  }
  void ShowSize(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    hidden_.erase(name);
  }

  int64_t alive_bytes() const { return alive_bytes_; }
  // Largest ever, loads under way included.
  int64_t peak_bytes() const { return peak_bytes_; }
  // Two loads of one model were under way at the same time.
  bool overlapped() const { return overlapped_; }
  std::vector<std::string> loads() const {
    absl::MutexLock lock(&mutex_);
    return loads_;
  }
  std::multiset<std::string> serving() const {
    absl::MutexLock lock(&mutex_);
    return serving_;
  }

  absl::StatusOr<residency::MemoryNeeds> Measure(const residency::CatalogueEntry& entry) override {
    absl::MutexLock lock(&mutex_);
    auto shown = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !hidden_.contains(entry.name); };
    mutex_.Await(absl::Condition(&shown));
    return residency::MemoryNeeds{.device = "fake", .bytes = BytesOf(entry.name)};
  }

  int64_t Budget(const std::string& device) override { return budget_; }

  absl::StatusOr<residency::LoadedWeights> Load(const residency::CatalogueEntry& entry,
                                                bool fresh) override {
    absl::MutexLock lock(&mutex_);
    overlapped_ = overlapped_ || !loading_.insert(entry.name).second;
    loads_.push_back(entry.name);
    auto open = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !closed_.contains(entry.name); };
    mutex_.Await(absl::Condition(&open));
    loading_.erase(entry.name);
    if (!failures_[entry.name].ok()) return failures_[entry.name];
    return residency::LoadedWeights{
        .weights = std::make_unique<FakeWeights>(*this, entry.name, BytesOf(entry.name))};
  }

  void Reclaim(const std::string& device) override {}
  void Forget(const std::string& name) override {}

 private:
  class FakeWeights : public residency::Weights {
   public:
    FakeWeights(FakeModelSource& source, std::string name, int64_t bytes)
        : source_(source), name_(std::move(name)), bytes_(bytes) {
      const int64_t alive = source_.alive_bytes_ += bytes_;
      int64_t peak = source_.peak_bytes_;
      while (alive > peak && !source_.peak_bytes_.compare_exchange_weak(peak, alive)) {
      }
    }
    ~FakeWeights() override { source_.alive_bytes_ -= bytes_; }
    int64_t bytes() const override { return bytes_; }
    void SetServing(bool serving) override {
      absl::MutexLock lock(&source_.mutex_);
      if (serving) {
        source_.serving_.insert(name_);
      } else {
        source_.serving_.erase(source_.serving_.find(name_));
      }
    }

   private:
    FakeModelSource& source_;
    const std::string name_;
    const int64_t bytes_;
  };

  int64_t BytesOf(const std::string& name) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const auto found = bytes_.find(name);
    return found == bytes_.end() ? 100 : found->second;
  }

  const int64_t budget_;
  std::atomic<int64_t> alive_bytes_{0};
  std::atomic<int64_t> peak_bytes_{0};
  std::atomic<bool> overlapped_{false};
  mutable absl::Mutex mutex_;
  std::map<std::string, int64_t> bytes_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> hidden_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> closed_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> loading_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> loads_ ABSL_GUARDED_BY(mutex_);
  std::multiset<std::string> serving_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ess::testing
