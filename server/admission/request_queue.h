// The queue of requests that compute: bounded by model, fair between callers, with two priorities.
// Torch-free.
//
//   Enter ---> waiting ---- Start ----> startable ---- a slot is free ----> running ---> gone
//                 |                         |                               |     ^
//                 +---- Leave, displaced ---+---------> gone      WaitAside v     | a slot is free
//                                                        ^------------- aside
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/cancellation.h"
#include "server/telemetry/metrics.h"

namespace ess::admission {

// Low waits for normal, except that every eighth start is a low one where one waits.
enum class Priority { kNormal, kLow };

// "normal", "low": the label of the metrics.
const char* PriorityName(Priority priority);

// Large requests use every core and run one after the other; small ones run on one thread each,
// beside each other and beside a large one.
enum class Weight { kLarge, kSmall };

struct QueuedRequest {
  std::string model;   // Served name, "" for operators that a caller brings: has its own limits.
  std::string caller;  // Whom fairness is for.
  Priority priority = Priority::kNormal;
  int64_t tokens = 0;
  // Of a job: it takes no place from anybody, so no limit holds for it, and nobody displaces it.
  bool background = false;
};

// Thread-safe.
class RequestQueue {
 public:
  struct Options {
    int large_slots = 1;  // Large requests that run at the same time; >= 1.
    int small_slots = 1;  // The same of small ones; >= 1.
    // Of the waiting requests of one model.
    int64_t max_requests = 64;
    int64_t max_tokens = int64_t{1} << 21;
  };
  using Id = int64_t;

  // Where a request runs. Its work may wait for somebody else meanwhile, and let others compute.
  class Slot {
   public:
    // Gives the slot to others while `wait` waits, then takes a free one, before requests that have
    // not begun. RULE: wait for models and memory nowhere else while in a slot; who has these may
    // then wait for a slot, for all slots are soon free.
    // Errors: those of `wait`; kCancelled, kDeadlineExceeded  while waiting for a slot. The work
    //         then has none, and ends.
    absl::Status WaitAside(absl::FunctionRef<absl::Status()> wait,
                           const CancellationToken& cancellation);

    // For background work, between its steps: returns at once unless a request of normal priority
    // waits for this slot; else lets all of them run first, for at most `longest`, and then goes on
    // as after WaitAside.
    // Errors: kCancelled, kDeadlineExceeded, kAborted  no slot came free for as long again. The
    //         work then has none, and ends.
    absl::Status Yield(absl::Duration longest, const CancellationToken& cancellation);

   private:
    friend class RequestQueue;
    void Pause() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex_);
    void GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex_);
    bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex_);
    Slot(RequestQueue& queue, Weight weight) : queue_(queue), weight_(weight) {}
    RequestQueue& queue_;
    const Weight weight_;
    bool aside_ = false;
  };
  using Work = std::function<void(Slot& slot)>;
  using Displaced = std::function<void(const absl::Status& status)>;

  // `metrics` outlives the queue, which keeps ess_queue_* and ess_requests_shed_total.
  RequestQueue(const Options& options, telemetry::Metrics& metrics);
  // Runs what is startable, then ends.
  ~RequestQueue();
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

  // Takes a place. It is counted until the request runs or leaves. Every place ends in exactly one
  // way: its work is called, or `displaced` is, or Leave returns true.
  //
  // When all places of the model are taken, the newest request of the caller who has most of them
  // is displaced if that caller would still have as many as this one.
  // Errors: kInvalidArgument    more tokens than the queue can ever hold.
  //         kResourceExhausted  no place: names what is needed and the limit; has RetryAfter.
  //         kUnavailable        after Drain.
  absl::StatusOr<Id> Enter(QueuedRequest request, Displaced displaced);

  // From now on `work` may be called, on one of the queue's threads. Nothing happens when the
  // request has left or was displaced. REQUIRES: not called before for this request.
  void Start(Id id, Weight weight, Work work);

  // Gives up a place. Whether the request had one: it does not once its work is being called.
  bool Leave(Id id);

  // Refuses new requests and waits until none is left, at most for `limit`. Returns whether none
  // is. May be called again.
  bool Drain(absl::Duration limit);

  // Displaces all that wait, with `status`.
  void EndWaiting(const absl::Status& status);

 private:
  struct Entry {
    Id id;
    QueuedRequest request;
    Displaced displaced;
    Weight weight = Weight::kLarge;
    Work work;  // Null until Start.
  };
  using Entries = std::list<Entry>;

  struct Load {
    int64_t requests = 0;
    int64_t tokens = 0;
  };

  // One for each slot and for each request aside. They stay; each costs LibTorch's own threads.
  void StartThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunThread();
  bool HasWorkOrStops() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entries::iterator Find(Id id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next to run, or the end.
  Entries::iterator Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int Slots(Weight weight) const;
  bool HasSlot(Weight weight) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those aside keep their threads, but not the other weight's.
  bool HasThread(Weight weight) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a request of normal priority could start, or go on, but for a slot.
  bool IsWanted(Weight weight) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a waiting entry out, with its counts.
  Entry Take(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const QueuedRequest& request, int64_t sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The entry that makes room for a request of `caller`, or the end.
  Entries::iterator Displaceable(const QueuedRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TimeToClear(const Load& load) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Charges a waiting request, which runs next, to its caller.
  void Serve(const QueuedRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Refer to the waiting entries.
  std::set<std::string_view> WaitingCallers() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetIdleCallers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  telemetry::Metrics& metrics_;
  absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // Waiting ones, in the order of arrival.
  std::map<std::string, Load> loads_ ABSL_GUARDED_BY(mutex_);  // By model.
  // Fair queueing by virtual time. The clock is what a caller who always waits has been served, in
  // tokens; who comes (again) begins there, so that nobody saves up.
  std::map<std::string, double> served_ ABSL_GUARDED_BY(mutex_);  // By caller; above the clock.
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;
  double seconds_per_token_ ABSL_GUARDED_BY(mutex_) = 0;  // Of late; 0: unknown.
  // By weight.
  std::array<int, 2> running_ ABSL_GUARDED_BY(mutex_) = {};
  std::array<int, 2> aside_ ABSL_GUARDED_BY(mutex_) = {};     // Those below included.
  std::array<int, 2> resuming_ ABSL_GUARDED_BY(mutex_) = {};  // That wait for a slot.
  Id next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t normal_in_a_row_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // Guarded by mutex_ until stopping_.
};

}  // namespace ess::admission
