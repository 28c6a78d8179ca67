#include "server/residency/host_tier.h"

#include <algorithm>
#include <utility>

#include "server/base/log.h"

namespace ess::residency {

std::shared_ptr<HostCopy> HostTier::Find(const CatalogueEntry& entry) {
  absl::MutexLock lock(&mutex_);
  const auto found = kept_.find(entry.name);
  if (found == kept_.end() || found->second.options != entry.options) return nullptr;
  found->second.last_use = ++uses_;
  return found->second.copy;
}

bool HostTier::MakeRoom(int64_t bytes) {
  if (bytes > budget_bytes_) return false;
  absl::MutexLock lock(&mutex_);
  MakeRoomLocked(bytes);
  return true;
}

void HostTier::MakeRoomLocked(int64_t bytes) {
  while (!kept_.empty() && bytes_ + bytes > budget_bytes_) {
    const auto oldest = std::min_element(
        kept_.begin(), kept_.end(),
        [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; });
    ESS_LOG(info, "model={} leaves host memory to make room", oldest->first);
    metrics_.model_evictions.Increment({oldest->first, "host"});
    Drop(oldest);
  }
}

void HostTier::Keep(const CatalogueEntry& entry, std::shared_ptr<HostCopy> copy) {
  const int64_t bytes = copy->weights.totals.bytes;
  absl::MutexLock lock(&mutex_);
  if (const auto old = kept_.find(entry.name); old != kept_.end()) Drop(old);
  if (bytes > budget_bytes_) return;
  MakeRoomLocked(bytes);
  bytes_ += bytes;
  kept_[entry.name] = {.options = entry.options, .copy = std::move(copy), .last_use = ++uses_};
  metrics_.model_bytes.Set({entry.name, "host"}, static_cast<double>(bytes));
}

void HostTier::Forget(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  if (const auto kept = kept_.find(name); kept != kept_.end()) Drop(kept);
}

void HostTier::Drop(std::map<std::string, Kept>::iterator kept) {
  bytes_ -= kept->second.copy->weights.totals.bytes;
  metrics_.model_bytes.Set({kept->first, "host"}, 0);
  kept_.erase(kept);
}

}  // namespace ess::residency
