// Weights that left an accelerator and stay in host memory, within a budget.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/models/host_weights.h"
#include "server/residency/model_options.h"
#include "server/telemetry/metrics.h"

namespace ess::residency {

struct HostCopy {
  models::HostWeights weights;
  std::string weight_digest;
};

// Thread-safe. A copy is made while a model is loaded and not when it is evicted: an eviction is
// then as quick as without it, and the copy costs host memory while the model is on its device.
class HostTier {
 public:
  // `metrics` outlives this. A budget of 0: nothing is kept.
  HostTier(int64_t budget_bytes, telemetry::Metrics& metrics)
      : budget_bytes_(budget_bytes), metrics_(metrics) {}

  // The copy of the model, if it was kept with these options; it is then the last one to go.
  std::shared_ptr<HostCopy> Find(const CatalogueEntry& entry);

  // Drops least recently used copies until `bytes` fit. False: they never would.
  bool MakeRoom(int64_t bytes);

  // Keeps a copy, in the place of an older one, if it fits.
  void Keep(const CatalogueEntry& entry, std::shared_ptr<HostCopy> copy);

  void Forget(const std::string& name);

 private:
  struct Kept {
    ModelOptions options;
    std::shared_ptr<HostCopy> copy;
    uint64_t last_use = 0;
  };

  void MakeRoomLocked(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(std::map<std::string, Kept>::iterator kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t budget_bytes_;
  telemetry::Metrics& metrics_;
  absl::Mutex mutex_;
  std::map<std::string, Kept> kept_ ABSL_GUARDED_BY(mutex_);  // By name.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ess::residency
