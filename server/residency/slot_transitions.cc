// What happens to the model of one name: its load, and the answers to those who wait for it.
#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/log.h"
#include "server/residency/resident_models.h"

namespace ess::residency {
namespace {

constexpr size_t kMaxReasonBytes = 4096;  // Of why a load failed: it is kept, and answered.

}  // namespace

void ResidentModels::Advance() {
  do {
    changed_ = false;
    for (auto& [device, pool] : pools_) Schedule(pool);
    for (auto& [name, slot] : slots_) {
      SettleUnloads(name, slot);
      Settle(name, slot);
    }
  } while (changed_);
  watching_ = false;
  for (auto& [name, slot] : slots_) {
    watching_ |= !slot.waiters.empty() || !slot.unloads.empty();
    PublishState(name, slot);
  }
  for (auto& [device, pool] : pools_) watching_ |= !pool.works.empty();
}

void ResidentModels::Settle(const std::string& name, Slot& slot) {
  bool wants_load = false;
  for (auto waiter = slot.waiters.begin(); waiter != slot.waiters.end();) {
    const absl::Status alive = waiter->request.cancellation->Check();
    if (!alive.ok()) {
      Answer(std::move(waiter->done), alive);
    } else if (Serves(slot) && !waiter->request.reload) {
      Answer(std::move(waiter->done), LeaseFor(waiter->request, slot));
    } else {
      wants_load |= slot.resident == nullptr || (Serves(slot) && waiter->request.reload);
      ++waiter;
      continue;
    }
    waiter = slot.waiters.erase(waiter);
  }
  if (slot.load == nullptr) {
    if (wants_load) BeginLoad(name, slot);
  } else if (slot.waiters.empty() && slot.load->phase != Phase::kMeasuring &&
             slot.load->phase != Phase::kLoading) {
    DropLoad(name, slot);
  }
}

void ResidentModels::SettleUnloads(const std::string& name, Slot& slot) {
  std::erase_if(slot.unloads, [&](PendingUnload& unload) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return SettleUnload(name, slot, unload);
  });
}

bool ResidentModels::SettleUnload(const std::string& name, Slot& slot, PendingUnload& unload) {
  const absl::Status alive = unload.cancellation->Check();
  if (unload.resident == nullptr) {
    if (!alive.ok()) {
      Answer(unload, alive);
      return true;
    }
    // First what is under way ends.
    if (slot.load != nullptr) return false;
    if (slot.resident != nullptr) {
      if (slot.resident->freeing || slot.resident->leaving == Leaving::kUnloading) return false;
      unload.resident = slot.resident;
      unload.resident->leaving = Leaving::kUnloading;
      unload.resident->note = "unloading";
      changed_ = true;
      return false;
    }
  } else if (slot.resident == unload.resident) {
    if (alive.ok() || unload.resident->freeing) return false;
    unload.resident->leaving = Leaving::kNo;
    changed_ = true;
    Answer(unload, alive);
    return true;
  }
  const int64_t bytes = unload.resident == nullptr ? 0 : unload.resident->bytes;
  if (slot.load == nullptr) {
    slot.failure = absl::OkStatus();
    slot.note = bytes > 0 ? "unloaded" : "";
  }
  answers_.push_back([this, name, done = unload.done, bytes] {
    source_.Forget(name);
    done(bytes);
  });
  changed_ = true;
  return true;
}

void ResidentModels::BeginLoad(const std::string& name, Slot& slot) {
  // What a reload asks for goes before what others find in the catalogue.
  const Request* chosen = &slot.waiters.front().request;
  for (Waiter& waiter : slot.waiters) {
    if (waiter.request.reload && !chosen->reload) chosen = &waiter.request;
    waiter.joined = true;
  }
  slot.load = std::make_unique<PendingLoad>();
  slot.load->entry = chosen->entry;
  slot.load->fresh = chosen->reload;
  tasks_.push_back(name);
  changed_ = true;
}

void ResidentModels::DropLoad(const std::string& name, Slot& slot) {
  const PendingLoad& load = *slot.load;
  if (load.phase == Phase::kWaiting) {
    load.pool->loads.remove(name);
  } else {
    std::erase(tasks_, name);
  }
  if (load.phase == Phase::kGranted) {
    load.pool->used -= load.needs.bytes;
    --load.pool->loading;
    --loading_;
  }
  slot.load = nullptr;
  // It was leaving to make room for its replacement.
  if (slot.resident != nullptr && !slot.resident->freeing) slot.resident->leaving = Leaving::kNo;
  changed_ = true;
}

void ResidentModels::FinishLoad(Slot& slot, absl::StatusOr<LoadedWeights> loaded) {
  const PendingLoad& load = *slot.load;
  const std::string name = load.entry.name;
  load.pool->used -= load.needs.bytes;
  --load.pool->loading;
  --loading_;
  if (!loaded.ok()) {
    Fail(name, slot, loaded.status());
    return;
  }
  auto resident = std::make_shared<Resident>();
  resident->name = name;
  resident->pool = load.pool;
  resident->bytes = loaded->weights->bytes();
  resident->options = load.entry.options;
  resident->weights = std::move(loaded->weights);
  resident->last_use = ++uses_;
  if (resident->bytes > load.needs.bytes) {
    ESS_LOG(warn, "model={} takes {} bytes; {} were expected", name, resident->bytes,
            load.needs.bytes);
  }
  metrics_.model_loads.Increment({name, "OK"});
  load.pool->used += resident->bytes;
  load.pool->residents.push_back(resident);
  if (slot.resident != nullptr && !slot.resident->freeing) {
    slot.resident->leaving = Leaving::kRetired;
    slot.resident->note = "replaced";
    slot.resident->weights->SetServing(false);
  }
  resident->weights->SetServing(true);
  metrics_.model_bytes.Set({name, "device"}, static_cast<double>(resident->bytes));
  slot.resident = std::move(resident);
  slot.note = slot.resident->options.pinned ? "pinned" : "";
  slot.load = nullptr;
  for (auto waiter = slot.waiters.begin(); waiter != slot.waiters.end();) {
    if (waiter->request.reload && !waiter->joined) {
      ++waiter;
      continue;
    }
    // A reload has the options that it asked for, or those of another reload at the same time.
    Answer(std::move(waiter->done), LeaseFor(waiter->request, slot));
    waiter = slot.waiters.erase(waiter);
  }
}

void ResidentModels::Fail(const std::string& name, Slot& slot, const absl::Status& why) {
  const absl::Status status(why.code(), CutText(std::string(why.message()), kMaxReasonBytes));
  slot.load = nullptr;
  metrics_.model_loads.Increment({name, absl::StatusCodeToString(status.code())});
  ESS_LOG(error, "load of model={} failed: {}: {}", name, absl::StatusCodeToString(status.code()),
          std::string(status.message()));
  if (slot.resident != nullptr) {
    // Not to make room for its replacement any more.
    if (slot.resident->leaving == Leaving::kUnloading && !slot.resident->freeing) {
      slot.resident->leaving = Leaving::kNo;
    }
    slot.note = fmt::format("serves the old weights; reload failed: {}: {}",
                            absl::StatusCodeToString(status.code()), std::string(status.message()));
  } else {
    slot.failure = status;
  }
  for (auto waiter = slot.waiters.begin(); waiter != slot.waiters.end();) {
    const Request& request = waiter->request;
    // Those who do not ask for a reload go on waiting for the old weights, should these be leaving.
    if (slot.resident != nullptr && !(request.reload && waiter->joined)) {
      ++waiter;
      continue;
    }
    Answer(std::move(waiter->done),
           request.explicit_load || request.reload
               ? status
               : absl::FailedPreconditionError(fmt::format("model '{}' could not be loaded: {}",
                                                           name, std::string(status.message()))));
    waiter = slot.waiters.erase(waiter);
  }
  changed_ = true;
}

void ResidentModels::PublishState(const std::string& name, Slot& slot) {
  const ModelState state = StateOf(slot);
  if (slot.published == state) return;
  slot.published = state;
  for (const ModelState each : kAllModelStates) {
    metrics_.model_state.Set({name, ModelStateName(each)}, each == state ? 1 : 0);
  }
}

}  // namespace ess::residency
