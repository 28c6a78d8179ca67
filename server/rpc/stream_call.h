// Calls that stream their answer: work on a queue thread makes messages, gRPC takes them one by
// one.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/admission/request_queue.h"
#include "server/admission/retry_after.h"
#include "server/base/cancellation.h"
#include "server/base/fault_point.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/pipeline/stage_times.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/call_services.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {

// Bytes of answers that wait for a slow reader; then the work waits.
inline constexpr size_t kMaxPendingBytes = 2 << 20;
// Work that waits for its reader this long lets others compute meanwhile.
inline constexpr absl::Duration kShortWait = absl::Milliseconds(20);

// Base of such a call. `Reactor` is a gRPC reactor that writes `Response`s.
//
// Life: Start -> Begin -> [reading] -> Enqueue -> [Run on a queue thread] -> OnDone. End may take
// the place of Enqueue; a cancel, a deadline or a displacement that of Run. gRPC calls OnWriteDone
// and OnCancel from its own threads meanwhile. One write is in flight. The call owns itself until
// OnDone; who calls back later holds a share.
template <typename Reactor, typename Response>
class StreamCall : public Reactor,
                   public std::enable_shared_from_this<StreamCall<Reactor, Response>> {
 public:
  // The only way to begin a call: makes a `Call` of `arguments`. When the caller is refused, it
  // ends with that, and its Begin is never called.
  template <typename Call, typename... Arguments>
  static Call* Start(Arguments&&... arguments) {
    const auto made = std::make_shared<Call>(std::forward<Arguments>(arguments)...);
    StreamCall& call = *made;
    call.self_ = made;
    if (const absl::Status& admitted = call.observer_.admitted(); !admitted.ok()) {
      call.End(admitted);
    } else {
      call.Begin();
    }
    return made.get();
  }

  void OnWriteDone(bool ok) final;
  void OnCancel() final;
  void OnDone() final {
    observer_.Finish(status_, stages_);
    const std::shared_ptr<StreamCall> last = std::move(self_);
  }

 protected:
  struct Context {
    CallServices services;
    admission::RequestQueue& queue;
    absl::Duration longest_stall;  // Of a reader; then the call is aborted.
  };

  // `rpc`, `served_model`, `request_bytes`: see CallObserver. All of `context` outlives the call.
  StreamCall(const Context& context, grpc::CallbackServerContext* call, const std::string& rpc,
             const std::string& served_model, int64_t request_bytes)
      : context_(context),
        call_(call),
        cancellation_(absl::FromChrono(call->deadline())),
        observer_(context.services, *call, cancellation_, rpc, served_model, request_bytes) {}

  // Begins to read, enqueues, or ends the call.
  virtual void Begin() = 0;

  // The work. Its status is the call's; exceptions become one.
  virtual absl::Status Run() = 0;

  // Gives back what only Run needs, as early as possible: after Run, or instead of it.
  virtual void ReleaseInput() {}

  // Takes a place in the queue, or ends the call. Whether it has one: StartQueued follows.
  bool Enqueue(admission::Priority priority, int64_t tokens);

  // Puts Run in line. Nothing happens when the call has ended meanwhile. `stage`, unless null: what
  // the time since Enqueue went to.
  void StartQueued(admission::Weight weight, const char* stage = nullptr);

  // Ends a call that is not enqueued. OnDone may follow at once.
  void End(const absl::Status& status) {
    ReleaseInput();
    Close(status);
  }

  // Ends a call that waits in the queue. Nothing happens when it has ended or runs.
  void EndQueued(const absl::Status& status);

  // Sends one message, after waiting for room. An error when nobody reads any more.
  absl::Status Send(Response message);

  telemetry::Metrics& metrics() { return context_.services.metrics; }
  const CancellationToken& cancellation() const { return cancellation_; }
  CallObserver& observer() { return observer_; }
  const Identity& identity() const { return observer_.identity(); }
  StageTimes& stages() { return stages_; }

 private:
  void Work(admission::RequestQueue::Slot& slot);
  void Close(const absl::Status& status);
  void FinishOnce();
  // Waits until `pending_` has room, or nobody reads any more, or time is up.
  // Errors: kCancelled, kDeadlineExceeded  while there is room, and no slot to go on in.
  absl::Status AwaitRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return broken_ || pending_bytes_ < kMaxPendingBytes;
  }
  // Once per call, by whoever notices first: gRPC, or the work that looks at its deadline.
  void CountCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long the work went on after the cancel or the deadline, if there was one.
  void ObserveCancelLatency() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Context context_;
  grpc::CallbackServerContext* const call_;
  std::shared_ptr<StreamCall> self_;
  CancellationToken cancellation_;
  CallObserver observer_;
  StageTimes stages_;
  absl::Time enqueued_;
  admission::RequestQueue::Slot* slot_ = nullptr;  // While Run runs.

  absl::Mutex mutex_;
  std::deque<Response> pending_ ABSL_GUARDED_BY(mutex_);  // The first is being written.
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // Nobody reads any more.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<admission::RequestQueue::Id> place_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time cancel_seen_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  const char* stage_ ABSL_GUARDED_BY(mutex_) = "receiving";
  absl::Status status_;  // Constant once `ended_`.
};

template <typename Reactor, typename Response>
bool StreamCall<Reactor, Response>::Enqueue(admission::Priority priority, int64_t tokens) {
  enqueued_ = absl::Now();
  const std::weak_ptr<StreamCall> weak = this->weak_from_this();
  const absl::StatusOr<admission::RequestQueue::Id> place =
      context_.queue.Enter({.model = observer_.model(),
                            .caller = observer_.caller(),
                            .priority = priority,
                            .tokens = tokens},
                           [weak](const absl::Status& status) {
                             if (const std::shared_ptr<StreamCall> call = weak.lock())
                               call->End(status);
                           });
  if (!place.ok()) {
    End(place.status());
    return false;
  }
  bool left = false;
  {
    absl::MutexLock lock(&mutex_);
    place_ = *place;
    stage_ = "queued";
    left = broken_;
  }
  if (left) EndQueued(absl::CancelledError("cancelled by the caller"));
  return !left;
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::StartQueued(admission::Weight weight, const char* stage) {
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
  // The queue holds a share from here on: the call lives until Run has returned.
  context_.queue.Start(
      *place, weight,
      [call = this->shared_from_this()](admission::RequestQueue::Slot& slot) { call->Work(slot); });
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::EndQueued(const absl::Status& status) {
  std::optional<admission::RequestQueue::Id> place;
  {
    absl::MutexLock lock(&mutex_);
    place = place_;
  }
  if (place && context_.queue.Leave(*place)) End(status);
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::Work(admission::RequestQueue::Slot& slot) {
  const absl::Duration waited = absl::Now() - enqueued_;
  metrics().queue_wait.Observe({observer_.model()}, absl::ToDoubleSeconds(waited));
  stages_.Add("queue", waited);
  {
    absl::MutexLock lock(&mutex_);
    stage_ = "running";
  }
  slot_ = &slot;
  ESS_FAULT_POINT("queued");
  absl::Status status = CatchTorch("profile", [this] { return Run(); });
  slot_ = nullptr;
  ReleaseInput();
  {
    absl::MutexLock lock(&mutex_);
    if (status.code() == absl::StatusCode::kDeadlineExceeded) CountCancelled();
    ObserveCancelLatency();
    stage_ = "sending";
  }
  Close(status);
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::Close(const absl::Status& status) {
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    status_ = context_.services.calls.StatusOf(status);
    ended_ = true;
    finish = !writing_;
  }
  if (finish) FinishOnce();
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::FinishOnce() {
  if (const auto time = admission::RetryAfter(status_)) {
    call_->AddTrailingMetadata(admission::kRetryAfterMetadata,
                               std::to_string(absl::ToInt64Milliseconds(*time)));
  }
  this->Finish(ToGrpcStatus(status_));
}

template <typename Reactor, typename Response>
absl::Status StreamCall<Reactor, Response>::AwaitRoom() {
  const absl::Time start = absl::Now();
  const absl::Condition room(this, &StreamCall::HasRoom);
  const absl::Time deadline = std::min(cancellation_.deadline(), start + context_.longest_stall);
  absl::Status status;
  if (!mutex_.AwaitWithTimeout(room, std::min(kShortWait, deadline - start))) {
    mutex_.Unlock();
    const bool paused = slot_ != nullptr && slot_->Pause();
    mutex_.Lock();
    const bool goes_on = mutex_.AwaitWithDeadline(room, deadline) && !broken_;
    mutex_.Unlock();
    if (paused && goes_on) status = slot_->Resume(cancellation_);
    mutex_.Lock();
  }
  observer_.CountStalled(absl::Now() - start);
  return status;
}

template <typename Reactor, typename Response>
absl::Status StreamCall<Reactor, Response>::Send(Response message) {
  ESS_RETURN_IF_ERROR(cancellation_.Check());
  ESS_FAULT_POINT("send");
  const Response* first = nullptr;
  const size_t bytes = message.ByteSizeLong();
  observer_.CountSent(static_cast<int64_t>(bytes));
  {
    absl::MutexLock lock(&mutex_);
    if (!HasRoom()) ESS_RETURN_IF_ERROR(AwaitRoom());
    if (broken_ || !HasRoom()) {
      if (const absl::Status reason = cancellation_.Check(); !reason.ok()) return reason;
      if (broken_) return absl::CancelledError("the caller left");
      // The message that is being written would keep the call open for as long as nobody reads.
      cancelled_ = true;  // By us: not counted as the caller's.
      call_->TryCancel();
      return absl::AbortedError(
          fmt::format("the caller has not read for {:.0f} s; the limit is max_stall_seconds",
                      absl::ToDoubleSeconds(context_.longest_stall)));
    }
    pending_.push_back(std::move(message));
    pending_bytes_ += bytes;
    if (!writing_) {
      writing_ = true;
      first = &pending_.front();
    }
  }
  if (first != nullptr) this->StartWrite(first);
  return absl::OkStatus();
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::OnWriteDone(bool ok) {
  const Response* next = nullptr;
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    pending_bytes_ -= pending_.front().ByteSizeLong();
    pending_.pop_front();
    if (!ok) {
      pending_.clear();
      pending_bytes_ = 0;
      broken_ = true;
    }
    if (pending_.empty()) {
      writing_ = false;
      finish = ended_;
    } else {
      next = &pending_.front();
    }
  }
  if (!ok) cancellation_.Cancel();
  if (next != nullptr) this->StartWrite(next);
  if (finish) FinishOnce();
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::OnCancel() {
  const absl::Status deadline = cancellation_.Check();
  cancellation_.Cancel();
  const absl::Status reason = context_.services.calls.StatusOf(
      deadline.ok() ? absl::CancelledError("cancelled by the caller") : deadline);
  {
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    cancel_seen_ = absl::Now();
    if (reason.code() != absl::StatusCode::kUnavailable) CountCancelled();
  }
  EndQueued(reason);
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::CountCancelled() {
  if (std::exchange(cancelled_, true)) return;
  metrics().requests_cancelled.Increment({observer_.model(), stage_});
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::ObserveCancelLatency() {
  const absl::Time now = absl::Now();
  const absl::Time seen = std::min(cancel_seen_, cancellation_.deadline());
  if (seen >= now) return;
  metrics().cancel_latency.Observe({observer_.model()}, absl::ToDoubleSeconds(now - seen));
}

}  // namespace ess::rpc
