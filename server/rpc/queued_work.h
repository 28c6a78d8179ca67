// Work that waits in the request queue: a call's, or that of one of several requests of a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/admission/request_queue.h"
#include "server/base/cancellation.h"
#include "server/pipeline/stage_times.h"
#include "server/telemetry/metrics.h"

namespace ess::rpc {

// Base of such work; knows no gRPC. Owned by shared pointers.
//
// Life: constructed -> Enqueue -> StartQueued -> [Run on a queue thread] -> OnEnded. End may take
// the place of Enqueue; a cancel, EndQueued or a displacement that of Run. Functions may be called
// from any thread, but those that begin the work one after the other.
class QueuedWork : public std::enable_shared_from_this<QueuedWork> {
 public:
  virtual ~QueuedWork() = default;
  QueuedWork(const QueuedWork&) = delete;
  QueuedWork& operator=(const QueuedWork&) = delete;

  // Ends work that waits in the queue. Nothing happens when it has ended or runs.
  void EndQueued(const absl::Status& status);

  // To be told after the token was set: counts the cancel, unless `reason` is kUnavailable, which
  // is the server's, and ends the work with `reason` if it waits or is about to.
  void Cancelled(const absl::Status& reason);

  // A cancel from now on is ours, and not counted as the caller's.
  void DisownCancel();

  // For the thread of Run: waits aside of the slot (wait_aside.h). Elsewhere it just waits.
  absl::Status WaitAside(absl::FunctionRef<absl::Status()> wait) {
    return slot_ == nullptr ? wait() : slot_->WaitAside(wait, cancellation_);
  }

 protected:
  // `model`: as QueuedRequest has it. `cancellation` is set by the owner. All outlive the work.
  QueuedWork(admission::RequestQueue& queue, telemetry::Metrics& metrics,
             const CancellationToken& cancellation, std::string model)
      : queue_(queue), metrics_(metrics), cancellation_(cancellation), model_(std::move(model)) {}

  // The work. Its status is the end's; exceptions become one.
  virtual absl::Status Run() = 0;

  // Gives back what only Run needs, as early as possible: after Run, or instead of it.
  virtual void ReleaseInput() {}

  // Once, and last: how the work ended. May destroy the work if nobody holds a share.
  virtual void OnEnded(const absl::Status& status) = 0;

  // Takes a place in the queue, or ends the work. Whether it has one: StartQueued follows.
  bool Enqueue(std::string caller, admission::Priority priority, int64_t tokens);

  // Puts Run in line. Nothing happens when the work has ended meanwhile. `stage`, unless null: what
  // the time since Enqueue went to.
  void StartQueued(admission::Weight weight, const char* stage = nullptr);

  // Ends work that is not enqueued. OnEnded is called at once.
  void End(const absl::Status& status);

  telemetry::Metrics& metrics() { return metrics_; }
  const CancellationToken& cancellation() const { return cancellation_; }
  auto Aside() {
    return [this](absl::FunctionRef<absl::Status()> wait) { return WaitAside(wait); };
  }
  StageTimes& stages() { return stages_; }
  const StageTimes& stages() const { return stages_; }

 private:
  void Work(admission::RequestQueue::Slot& slot);
  // Once, by whoever notices first: the owner, or the work that looks at its deadline.
  void CountCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long the work went on after the cancel or the deadline, if there was one.
  void ObserveCancelLatency() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  admission::RequestQueue& queue_;
  telemetry::Metrics& metrics_;
  const CancellationToken& cancellation_;
  const std::string model_;
  StageTimes stages_;
  absl::Time enqueued_;
  admission::RequestQueue::Slot* slot_ = nullptr;  // While Run runs.

  absl::Mutex mutex_;
  std::optional<admission::RequestQueue::Id> place_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> cancel_reason_ ABSL_GUARDED_BY(mutex_);
  bool cancel_counted_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time cancel_seen_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  const char* stage_ ABSL_GUARDED_BY(mutex_) = "receiving";
};

}  // namespace ess::rpc
