// Who gets the memory of one device: the order of resident_models.h.
#include <algorithm>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/byte_text.h"
#include "server/base/log.h"
#include "server/residency/eviction_choice.h"
#include "server/residency/resident_models.h"

namespace ess::residency {

bool ResidentModels::Overdue(const Pool& pool) const {
  if (pool.loads.empty()) return false;
  const absl::Time since = slots_.at(pool.loads.front()).load->blocked_since;
  return absl::Now() - since >= options_.eviction_patience;
}

void ResidentModels::Schedule(Pool& pool) {
  for (size_t i = 0; i < pool.residents.size(); ++i) {
    const std::shared_ptr<Resident> resident = pool.residents[i];
    const bool leaves =
        resident->leaving == Leaving::kUnloading || resident->leaving == Leaving::kRetired;
    if (leaves && resident->leases == 0 && !resident->freeing) Free(resident);
  }
  const bool overdue = Overdue(pool);
  if (!overdue) EndDraining(pool);
  const bool granted = GrantWorks(pool, /*draining_only=*/true) &&
                       (!overdue || GrantLoads(pool, /*first_only=*/true)) &&
                       GrantWorks(pool, /*draining_only=*/false) &&
                       GrantLoads(pool, /*first_only=*/false);
  if (!granted) BreakStall(pool);
  if (pool.works.empty()) pool.stalled_since = absl::InfiniteFuture();
}

bool ResidentModels::GrantWorks(Pool& pool, bool draining_only) {
  for (auto next = pool.works.begin(); next != pool.works.end();) {
    WaitingWork& work = **next;
    if (draining_only && work.resident->leaving == Leaving::kNo) {
      ++next;
      continue;
    }
    if (!MakeRoom(pool, work.bytes, work.resident->name, "work")) return false;
    pool.used += work.bytes;
    ++pool.working;
    work.resident->work_bytes += work.bytes;
    work.granted = true;
    next = pool.works.erase(next);
  }
  return true;
}

bool ResidentModels::GrantLoads(Pool& pool, bool first_only) {
  while (!pool.loads.empty()) {
    // Room for a load that no thread could begin would only keep others from it.
    if (loading_ >= options_.max_parallel_loads) return true;
    if (!CheckFirstLoad(pool)) continue;
    const std::string name = pool.loads.front();
    PendingLoad& load = *slots_.at(name).load;
    if (!MakeRoom(pool, load.needs.bytes, name, "load")) {
      load.blocked_since = std::min(load.blocked_since, absl::Now());
      if (Overdue(pool)) DrainFor(pool, name, load.needs.bytes);
      return false;
    }
    pool.used += load.needs.bytes;
    ++pool.loading;
    ++loading_;
    load.phase = Phase::kGranted;
    pool.loads.pop_front();
    tasks_.push_back(name);
    EndDraining(pool);
    changed_ = true;
    if (first_only) return true;
  }
  return true;
}

int64_t ResidentModels::PinnedBytes(const Pool& pool, const std::string& except) const {
  int64_t bytes = 0;
  for (const auto& resident : pool.residents) {
    const bool stays = resident->options.pinned && resident->leaving == Leaving::kNo;
    if (stays && resident->name != except) bytes += resident->bytes;
  }
  return bytes;
}

bool ResidentModels::CheckFirstLoad(Pool& pool) {
  const std::string name = pool.loads.front();
  Slot& slot = slots_.at(name);
  const int64_t needed = slot.load->needs.bytes;
  const int64_t pinned = PinnedBytes(pool, name);
  if (needed > pool.limit - pinned) {
    pool.loads.pop_front();
    Fail(name, slot,
         absl::ResourceExhaustedError(fmt::format(
             "the model needs up to {} bytes on {}; the limit is {} (device_memory_budget_bytes{})",
             needed, pool.device, pool.limit - pinned,
             pinned > 0 ? fmt::format(" {} less pinned models", pool.limit) : "")));
    return false;
  }
  const bool no_room_for_both = Serves(slot) && slot.resident->pool == &pool &&
                                needed + slot.resident->bytes > pool.limit - pinned;
  if (no_room_for_both) {
    ESS_LOG(info,
            "reload of model={}: no room for {} beside the old weights of {}; these go first, and "
            "the model does not serve meanwhile",
            name, ByteText(needed), ByteText(slot.resident->bytes));
    slot.resident->leaving = Leaving::kUnloading;
    slot.resident->note = "makes room for its replacement";
    if (slot.resident->leases == 0) Free(slot.resident);
  }
  return true;
}

bool ResidentModels::Evictable(const Resident& resident, const std::string& for_model) const {
  const bool idle = resident.leases == 0 && !resident.freeing && !resident.options.pinned &&
                    (resident.leaving == Leaving::kNo || resident.leaving == Leaving::kDraining);
  if (!idle || resident.name == for_model) return false;
  // If its replacement fails to load, it goes on.
  const Slot& slot = slots_.at(resident.name);
  const bool being_replaced = slot.load != nullptr && (slot.load->phase == Phase::kGranted ||
                                                       slot.load->phase == Phase::kLoading);
  return !being_replaced;
}

bool ResidentModels::MakeRoom(Pool& pool, int64_t bytes, const std::string& name,
                              const std::string& reason) {
  if (bytes <= pool.limit - pool.used) return true;
  std::vector<std::shared_ptr<Resident>> idle;
  std::vector<EvictionCandidate> candidates;
  for (const auto& resident : pool.residents) {
    if (!Evictable(*resident, name)) continue;
    idle.push_back(resident);
    candidates.push_back({.bytes = resident->bytes, .last_use = resident->last_use});
  }
  const int64_t missing = bytes - (pool.limit - pool.used) - pool.freeing;
  const auto chosen = ChooseEvictions(candidates, missing);
  if (!chosen) return false;
  for (const size_t index : *chosen) {
    Resident& evicted = *idle[index];
    const bool drained = evicted.leaving == Leaving::kDraining;
    metrics_.model_evictions.Increment({evicted.name, drained ? "drained" : reason});
    evicted.note = fmt::format("evicted for {}'{}'", reason == "work" ? "work of " : "", name);
    ESS_LOG(info, "model={} {}: {} given back on {}", evicted.name, evicted.note,
            ByteText(evicted.bytes), pool.device);
    Free(idle[index]);
  }
  return false;
}

void ResidentModels::DrainFor(Pool& pool, const std::string& name, int64_t bytes) {
  // What will be free once everything that leaves has left.
  int64_t coming = pool.limit - pool.used;
  std::vector<std::shared_ptr<Resident>> used;
  for (const auto& resident : pool.residents) {
    if (resident->freeing || resident->leaving != Leaving::kNo || Evictable(*resident, name)) {
      coming += resident->bytes + resident->work_bytes;
    } else if (!resident->options.pinned && resident->name != name && resident->leases > 0) {
      used.push_back(resident);
    }
  }
  std::sort(used.begin(), used.end(),
            [](const auto& a, const auto& b) { return a->last_use < b->last_use; });
  for (const auto& resident : used) {
    if (coming >= bytes) return;
    resident->leaving = Leaving::kDraining;
    resident->note = fmt::format("draining for '{}'", name);
    ESS_LOG(info, "model={} drains for model={}, which has waited for {:.1f} s", resident->name,
            name, absl::ToDoubleSeconds(options_.eviction_patience));
    coming += resident->bytes + resident->work_bytes;
    changed_ = true;
  }
}

void ResidentModels::EndDraining(Pool& pool) {
  for (const auto& resident : pool.residents) {
    if (resident->leaving != Leaving::kDraining || resident->freeing) continue;
    resident->leaving = Leaving::kNo;
    changed_ = true;
  }
}

void ResidentModels::Free(const std::shared_ptr<Resident>& resident) {
  resident->freeing = true;
  resident->pool->freeing += resident->bytes;
  if (resident->leaving != Leaving::kRetired) resident->weights->SetServing(false);
  evictions_.push_back({resident, std::move(resident->weights)});
  changed_ = true;
}

void ResidentModels::BreakStall(Pool& pool) {
  const bool moving = pool.working > 0 || pool.loading > 0 || pool.freeing > 0;
  if (moving || pool.works.empty()) {
    pool.stalled_since = absl::InfiniteFuture();
    return;
  }
  const absl::Time now = absl::Now();
  pool.stalled_since = std::min(pool.stalled_since, now);
  if (now - pool.stalled_since < options_.eviction_patience) return;
  pool.works.back()->aborted = true;
  pool.works.pop_back();
  pool.stalled_since = now;
}

}  // namespace ess::residency
