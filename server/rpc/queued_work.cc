#include "server/rpc/queued_work.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/base/fault_point.h"
#include "server/base/torch_status.h"

namespace ess::rpc {

bool QueuedWork::Enqueue(std::string caller, admission::Priority priority, int64_t tokens) {
  enqueued_ = absl::Now();
  const std::weak_ptr<QueuedWork> weak = weak_from_this();
  const absl::StatusOr<admission::RequestQueue::Id> place = queue_.Enter(
      {.model = model_, .caller = std::move(caller), .priority = priority, .tokens = tokens},
      [weak](const absl::Status& status) {
        if (const std::shared_ptr<QueuedWork> work = weak.lock()) work->End(status);
      });
  if (!place.ok()) {
    End(place.status());
    return false;
  }
  std::optional<absl::Status> cancelled;
  {
    absl::MutexLock lock(&mutex_);
    place_ = *place;
    stage_ = "queued";
    cancelled = cancel_reason_;
  }
  if (cancelled) EndQueued(*cancelled);
  return !cancelled;
}

void QueuedWork::StartQueued(admission::Weight weight, const char* stage) {
  std::optional<admission::RequestQueue::Id> place;
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    place = place_;
    if (stage != nullptr) {
      const absl::Time now = absl::Now();
      stages_.Add(stage, now - enqueued_);
      enqueued_ = now;
    }
  }
  // The queue holds a share from here on: the work lives until Run has returned.
  queue_.Start(*place, weight, [work = shared_from_this()](admission::RequestQueue::Slot& slot) {
    work->Work(slot);
  });
}

void QueuedWork::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  ReleaseInput();
  OnEnded(status);
}

void QueuedWork::EndQueued(const absl::Status& status) {
  std::optional<admission::RequestQueue::Id> place;
  {
    absl::MutexLock lock(&mutex_);
    place = place_;
  }
  if (place && queue_.Leave(*place)) End(status);
}

void QueuedWork::Cancelled(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mutex_);
    cancel_reason_ = reason;
    cancel_seen_ = absl::Now();
    if (reason.code() != absl::StatusCode::kUnavailable) CountCancelled();
  }
  EndQueued(reason);
}

void QueuedWork::DisownCancel() {
  absl::MutexLock lock(&mutex_);
  cancel_counted_ = true;
}

void QueuedWork::Work(admission::RequestQueue::Slot& slot) {
  const absl::Duration waited = absl::Now() - enqueued_;
  metrics_.queue_wait.Observe({model_}, absl::ToDoubleSeconds(waited));
  stages_.Add("queue", waited);
  {
    absl::MutexLock lock(&mutex_);
    stage_ = "running";
  }
  slot_ = &slot;
  ESS_FAULT_POINT("queued");
  const absl::Status status = CatchTorch("profile", [this] { return Run(); });
  slot_ = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (status.code() == absl::StatusCode::kDeadlineExceeded) CountCancelled();
    ObserveCancelLatency();
    stage_ = "sending";
  }
  End(status);
}

void QueuedWork::CountCancelled() {
  if (std::exchange(cancel_counted_, true)) return;
  metrics_.requests_cancelled.Increment({model_, stage_});
}

void QueuedWork::ObserveCancelLatency() {
  const absl::Time now = absl::Now();
  const absl::Time seen = std::min(cancel_seen_, cancellation_.deadline());
  if (seen >= now) return;
  metrics_.cancel_latency.Observe({model_}, absl::ToDoubleSeconds(now - seen));
}

}  // namespace ess::rpc
