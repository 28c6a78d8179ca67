// Which models are in memory, who uses them, who waits, and who goes to make room: the state
// machine of the residency. It knows nothing of LibTorch, gRPC or files (model_source.h does).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/cancellation.h"
#include "server/base/wait_aside.h"
#include "server/residency/model_options.h"
#include "server/residency/model_source.h"
#include "server/telemetry/metrics.h"

namespace ess::residency {

// What outsiders see.
//
//             somebody asks             loaded
//   kCold ------------------> kLoading ---------> kReady <-----------+
//    ^ ^                        |   ^               |                | nobody needs its memory
//    | |                 failed |   | LoadModel     | unloaded,      | any more, or the unload
//    | |                        v   |               | evicted,       | was cancelled
//    | +----------------------kFailed               | draining       |
//    |       UnloadModel                            v                |
//    +------------------------------------------ kUnloading ---------+
//            last lease given back, memory given back
//
// A model that is being replaced (reload) stays kReady until the new weights take its place.
enum class ModelState { kCold, kLoading, kReady, kUnloading, kFailed };

inline constexpr ModelState kAllModelStates[] = {ModelState::kCold, ModelState::kLoading,
                                                 ModelState::kReady, ModelState::kUnloading,
                                                 ModelState::kFailed};

// "cold", "loading", ...: the label of the metrics.
const char* ModelStateName(ModelState state);

// Thread-safe.
//
// Memory. Each device has a budget. Weights in memory, loads under way (by their upper bound) and
// the work of running requests are counted in it, and their sum never exceeds it.
//
// A load: queued -> measured -> waits for room -> granted -> loads -> serves or fails. Loads happen
// on threads of this class; no lock is held meanwhile.
//
// Room is granted device by device, strictly in this order, so that nobody overtakes:
//   1. work of leases whose model drains   2. the first load, once it is overdue
//   3. other work                          4. loads
// and in the order of arrival within each. What does not fit evicts models that nobody uses and
// that are not pinned, least recently used first, if that suffices; otherwise it waits, and so do
// those behind it. A load that has waited for `eviction_patience` is overdue: used models begin to
// drain, least recently used first, until what they hold suffices. A draining model gives no new
// leases, and goes when its last one is given back; it serves again if the load no longer waits.
//
// Nobody waits for ever. Room is held by
//   - granted work, loads and evictions under way: they end by themselves;
//   - models without leases: evicted at once;
//   - leases of granted work: they end with the work;
//   - leases that wait for work themselves. When none of the above is under way on the device for
//     `eviction_patience`, the youngest waiting work is refused with kAborted; its caller gives its
//     lease back, which makes a model evictable, and starts again;
//   - other leases. RULE for their holders: while holding a lease, wait for nothing but ReserveWork
//     and what ends without room, as the work of others does once it has its own.
//   - pinned models: a load that cannot fit beside them is refused.
class ResidentModels {
 public:
  struct Options {
    int max_parallel_loads = 1;
    absl::Duration eviction_patience = absl::Seconds(5);
  };

  // `source` and `metrics` outlive this.
  ResidentModels(ModelSource& source, telemetry::Metrics& metrics, const Options& options);
  // REQUIRES: no lease and no reservation is left.
  ~ResidentModels();
  ResidentModels(const ResidentModels&) = delete;
  ResidentModels& operator=(const ResidentModels&) = delete;

 private:
  struct Resident;
  struct Pool;

 public:
  // Keeps weights in memory. Move-only.
  class Lease {
   public:
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();
    const std::string& name() const;
    const Weights& weights() const;
    const ModelOptions& options() const;

   private:
    friend class ResidentModels;
    Lease(ResidentModels& models, std::shared_ptr<Resident> resident)
        : models_(&models), resident_(std::move(resident)) {}
    ResidentModels* models_;
    std::shared_ptr<Resident> resident_;
  };

  // Room for work, until it is destroyed. Move-only.
  class Reservation {
   public:
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&&) = delete;
    ~Reservation();

   private:
    friend class ResidentModels;
    Reservation(ResidentModels& models, Pool& pool, std::shared_ptr<Resident> resident,
                int64_t bytes)
        : models_(&models), pool_(&pool), resident_(std::move(resident)), bytes_(bytes) {}
    ResidentModels* models_;
    Pool* pool_;
    std::shared_ptr<Resident> resident_;
    int64_t bytes_;
  };

  using Done = std::function<void(absl::StatusOr<Lease>)>;

  struct Request {
    CatalogueEntry entry;
    // A call for the load itself and not for its result: tries again what failed before, and gets
    // the load's own error.
    bool explicit_load = false;
    // kAlreadyExists when the model is in memory with other options than `entry`'s.
    bool must_match = false;
    // Loads again what is in memory, and puts it in its place.
    bool reload = false;
    // Looked at every 20 ms while the request waits.
    std::shared_ptr<const CancellationToken> cancellation;
  };

  // Calls `done` exactly once: here and at once when the model serves or has failed, else from a
  // thread of this class, which it must not block. A load is begun when there is none.
  // Errors: kFailedPrecondition  its load failed, now or before; the message has the reason.
  //         kCancelled, kDeadlineExceeded  while waiting; kUnavailable  at the end of the process.
  //         Of an explicit load: those of ModelSource; kAlreadyExists; kResourceExhausted  it can
  //         never fit, or memory ran out.
  void WhenReady(Request request, Done done);

  // Takes the model out of memory when its last lease is given back. Calls `done` exactly once,
  // from a thread of this class, which it must not block, with the bytes of the weights; 0 when it
  // was not in memory.
  // Errors: kCancelled, kDeadlineExceeded  while waiting; the model then serves on. kUnavailable.
  void Unload(const std::string& name, std::shared_ptr<const CancellationToken> cancellation,
              std::function<void(absl::StatusOr<int64_t>)> done);

  // Room of `bytes` on the lease's device, for what its holder is about to compute. Waits for it,
  // aside.
  // Errors: kInvalidArgument  it could never fit beside its own model: names needed and limit.
  //         kAborted          gave way to others (see above): give the lease back, and start again.
  //         kCancelled, kDeadlineExceeded  while waiting.
  absl::StatusOr<Reservation> ReserveWork(const Lease& lease, int64_t bytes,
                                          const CancellationToken& cancellation,
                                          WaitAside aside = WaitHere);

  // Whether the model leaves, or somebody has waited for memory on its device for
  // `eviction_patience`.
  bool IsNeededElsewhere(const std::string& name) const;

  // Answers those who wait, and those to come, with kUnavailable, and ends the threads.
  void Stop();

  struct Status {
    ModelState state = ModelState::kCold;
    std::string reason;  // Why it is in that state; empty for a model nobody asked for.
    std::optional<ModelOptions> options;  // Of the weights in memory.
  };

  // `inspect` sees the weights in memory, if any, under the lock.
  Status Get(const std::string& name, absl::FunctionRef<void(const Weights&)> inspect) const;

  // Bytes counted in a device's budget now: weights, loads and work.
  int64_t UsedBytes(const std::string& device) const;

 private:
  enum class Leaving {
    kNo,
    kDraining,   // For an overdue load. Revocable.
    kUnloading,  // Asked for, or makes room for its own replacement. Revocable.
    kRetired,    // Replaced.
  };

  // One set of weights in memory. Guarded by mutex_, except what leases read: constant.
  struct Resident {
    std::string name;
    Pool* pool = nullptr;
    int64_t bytes = 0;
    ModelOptions options;
    std::unique_ptr<Weights> weights;  // Null once it is being freed.
    int leases = 0;
    int64_t work_bytes = 0;  // Reserved by its leases.
    uint64_t last_use = 0;
    Leaving leaving = Leaving::kNo;
    bool freeing = false;
    std::string note;  // Why it leaves.
  };

  enum class Phase { kQueued, kMeasuring, kWaiting, kGranted, kLoading };

  struct PendingLoad {
    CatalogueEntry entry;
    Phase phase = Phase::kQueued;
    MemoryNeeds needs;
    Pool* pool = nullptr;                               // From kWaiting.
    absl::Time blocked_since = absl::InfiniteFuture();  // First time that there was no room.
    bool fresh = false;
  };

  struct Waiter {
    Request request;
    Done done;
    bool joined = false;  // The slot's load is the one that this reload asked for.
  };

  struct PendingUnload {
    std::shared_ptr<const CancellationToken> cancellation;
    std::function<void(absl::StatusOr<int64_t>)> done;
    std::shared_ptr<Resident> resident;  // That is to go, once the unload has begun.
  };

  struct Slot {
    std::shared_ptr<Resident> resident;
    std::unique_ptr<PendingLoad> load;
    std::list<Waiter> waiters;
    std::list<PendingUnload> unloads;
    absl::Status failure;
    std::string note;  // Why it is cold, or what its last reload came to.
    std::optional<ModelState> published;
  };

  struct WaitingWork {
    Resident* resident;
    int64_t bytes;
    absl::Time since = absl::Now();
    bool granted = false;
    bool aborted = false;
  };

  // The memory of one device.
  struct Pool {
    std::string device;
    int64_t limit = 0;
    int64_t used = 0;
    int64_t freeing = 0;  // Part of `used` that is being given back.
    int loading = 0;      // Loads that were granted and have not ended.
    int working = 0;      // Granted work.
    std::vector<std::shared_ptr<Resident>> residents;
    std::list<WaitingWork*> works;
    std::list<std::string> loads;  // Names of models in Phase::kWaiting, by arrival.
    absl::Time stalled_since = absl::InfiniteFuture();
  };

  struct Eviction {
    std::shared_ptr<Resident> resident;
    std::unique_ptr<Weights> weights;
  };

  // resident_models.cc: requests, and what their state is.
  void Release(Resident& resident);
  void ReleaseWork(Pool& pool, Resident& resident, int64_t bytes);
  Lease MakeLease(const std::shared_ptr<Resident>& resident) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Lease> LeaseFor(const Request& request, const Slot& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool Serves(const Slot& slot);
  static ModelState StateOf(const Slot& slot);
  std::string ReasonOf(const Slot& slot) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  std::string WaitReason(const PendingLoad& load) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  // From a thread of this class, soon.
  void Answer(Done done, absl::StatusOr<Lease> result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Answer(const PendingUnload& unload, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // slot_transitions.cc: what happens to the model of one name.
  // Does everything that can be done now. To be called after every change.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Answers those who need not wait any more, and begins or drops the load.
  void Settle(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Begins unloads, ends those whose model has gone or whose caller has left.
  void SettleUnloads(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it has ended.
  bool SettleUnload(const std::string& name, Slot& slot, PendingUnload& unload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginLoad(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropLoad(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLoad(Slot& slot, absl::StatusOr<LoadedWeights> loaded)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A load that ended without weights.
  void Fail(const std::string& name, Slot& slot, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PublishState(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // room_schedule.cc: who gets the memory of one device.
  void Schedule(Pool& pool) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Overdue(const Pool& pool) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Grant as many as fit, in order; false when the first that does not has to wait.
  bool GrantWorks(Pool& pool, bool draining_only) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool GrantLoads(Pool& pool, bool first_only) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the first load may go on waiting for room: refuses what cannot fit, and lets the model
  // that is to be replaced go first where there is no room for both.
  bool CheckFirstLoad(Pool& pool) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True when `bytes` are free now. Else evicts what makes room for them, if anything does.
  bool MakeRoom(Pool& pool, int64_t bytes, const std::string& name, const std::string& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Evictable(const Resident& resident, const std::string& for_model) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  int64_t PinnedBytes(const Pool& pool, const std::string& except) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void DrainFor(Pool& pool, const std::string& name, int64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Draining models serve again. At once when the load that they drained for is granted: the next
  // one may be the replacement of one of them.
  void EndDraining(Pool& pool) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Free(const std::shared_ptr<Resident>& resident) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BreakStall(Pool& pool) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // residency_threads.cc: everything slow.
  void LoadThread();
  void MeasureNext(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LoadNext(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Frees, answers, and looks at deadlines.
  void KeeperThread();
  void FinishFree(Resident& resident) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ModelSource& source_;
  telemetry::Metrics& metrics_;
  const Options options_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Pool> pools_ ABSL_GUARDED_BY(mutex_);  // By device.
  std::deque<std::string> tasks_ ABSL_GUARDED_BY(mutex_);      // Loads in kQueued or kGranted.
  std::deque<absl::AnyInvocable<void()>> answers_ ABSL_GUARDED_BY(mutex_);
  std::deque<Eviction> evictions_ ABSL_GUARDED_BY(mutex_);
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
  int loading_ ABSL_GUARDED_BY(mutex_) = 0;  // On all devices.
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool watching_ ABSL_GUARDED_BY(mutex_) = false;  // Somebody waits: the keeper looks at clocks.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ess::residency
