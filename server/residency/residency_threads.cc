// The threads of the residency: everything slow happens here, without the lock.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "server/base/log.h"
#include "server/residency/resident_models.h"

namespace ess::residency {
namespace {

// How soon a cancelled or late request is noticed.
constexpr absl::Duration kWatchInterval = absl::Milliseconds(20);
// Loads are a little less urgent than answers, so that those of one model do not slow down while
// another one loads. On Linux a niceness belongs to a thread.
constexpr int kLoadNiceness = 5;

const char* TierName(Tier tier) { return tier == Tier::kHost ? "host" : "disk"; }

}  // namespace

ResidentModels::ResidentModels(ModelSource& source, telemetry::Metrics& metrics,
                               const Options& options)
    : source_(source), metrics_(metrics), options_(options) {
  ESS_CHECK(options.max_parallel_loads >= 1);
  for (int i = 0; i < options.max_parallel_loads; ++i) {
    threads_.emplace_back([this] { LoadThread(); });
  }
  threads_.emplace_back([this] { KeeperThread(); });
}

ResidentModels::~ResidentModels() { Stop(); }

void ResidentModels::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [name, slot] : slots_) {
      const absl::Status ending = absl::UnavailableError("the server is shutting down");
      for (Waiter& waiter : slot.waiters) Answer(std::move(waiter.done), ending);
      for (const PendingUnload& unload : slot.unloads) Answer(unload, ending);
      slot.waiters.clear();
      slot.unloads.clear();
    }
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ResidentModels::LoadThread() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kLoadNiceness);
  auto wake = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !tasks_.empty(); };
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(&wake));
    if (stopping_) return;
    const std::string name = std::move(tasks_.front());
    tasks_.pop_front();
    Slot& slot = slots_.at(name);
    if (slot.load->phase == Phase::kQueued) {
      MeasureNext(name, slot);
    } else {
      LoadNext(name, slot);
    }
    if (stopping_) return;
    Advance();
  }
}

void ResidentModels::MeasureNext(const std::string& name, Slot& slot) {
  PendingLoad& load = *slot.load;
  load.phase = Phase::kMeasuring;
  const CatalogueEntry entry = load.entry;
  mutex_.Unlock();
  const absl::StatusOr<MemoryNeeds> needs = source_.Measure(entry);
  const int64_t budget = needs.ok() ? source_.Budget(needs->device) : 0;
  mutex_.Lock();
  if (!needs.ok()) {
    Fail(name, slot, needs.status());
    return;
  }
  Pool& pool = pools_[needs->device];
  pool.device = needs->device;
  pool.limit = budget;
  load.needs = *needs;
  load.pool = &pool;
  load.phase = Phase::kWaiting;
  pool.loads.push_back(name);
}

void ResidentModels::LoadNext(const std::string& name, Slot& slot) {
  PendingLoad& load = *slot.load;
  load.phase = Phase::kLoading;
  const CatalogueEntry entry = load.entry;
  const bool fresh = load.fresh;
  mutex_.Unlock();
  const absl::Time start = absl::Now();
  absl::StatusOr<LoadedWeights> loaded = source_.Load(entry, fresh);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  metrics_.model_load_duration.Observe({name, TierName(loaded.ok() ? loaded->from : Tier::kDisk)},
                                       seconds);
  if (loaded.ok()) {
    ESS_LOG(info, "loaded model={} from={} bytes={} seconds={:.2f}", name, TierName(loaded->from),
            loaded->weights->bytes(), seconds);
  }
  mutex_.Lock();
  FinishLoad(slot, std::move(loaded));
}

void ResidentModels::KeeperThread() {
  auto wake = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || watching_ || !answers_.empty() || !evictions_.empty();
  };
  auto urgent = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !answers_.empty() || !evictions_.empty();
  };
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(&wake));
    if (watching_) mutex_.AwaitWithTimeout(absl::Condition(&urgent), kWatchInterval);
    if (stopping_ && answers_.empty() && evictions_.empty()) return;
    if (!answers_.empty()) {
      absl::AnyInvocable<void()> answer = std::move(answers_.front());
      answers_.pop_front();
      mutex_.Unlock();
      answer();
      answer = nullptr;  // With what it holds.
      mutex_.Lock();
    } else if (!evictions_.empty()) {
      Eviction eviction = std::move(evictions_.front());
      evictions_.pop_front();
      mutex_.Unlock();
      eviction.weights = nullptr;
      source_.Reclaim(eviction.resident->pool->device);
      mutex_.Lock();
      FinishFree(*eviction.resident);
      if (!stopping_) Advance();
    } else {
      Advance();
    }
  }
}

void ResidentModels::FinishFree(Resident& resident) {
  Pool& pool = *resident.pool;
  pool.used -= resident.bytes;
  pool.freeing -= resident.bytes;
  Slot& slot = slots_.at(resident.name);
  if (slot.resident.get() == &resident) {
    slot.resident = nullptr;
    slot.note = resident.note;
    metrics_.model_bytes.Set({resident.name, "device"}, 0);
  }
  std::erase_if(pool.residents, [&resident](const auto& each) { return each.get() == &resident; });
}

}  // namespace ess::residency
