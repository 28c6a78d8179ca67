// Calls that stream their answer: work on a queue thread makes messages, gRPC takes them one by
// one.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/admission/work_queue.h"
#include "server/base/cancellation.h"
#include "server/base/torch_status.h"
#include "server/pipeline/stage_times.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {

// Bytes of answers that wait for a slow reader; then the work waits.
inline constexpr size_t kMaxPendingBytes = 2 << 20;

// Base of such a call. `Reactor` is a gRPC reactor that writes `Response`s.
//
// Life: constructed -> [reading] -> Enqueue -> [Run on a queue thread] -> OnDone, which deletes it.
// End may take the place of Enqueue. gRPC calls OnWriteDone and OnCancel from its own threads
// meanwhile. One write is in flight.
template <typename Reactor, typename Response>
class StreamCall : public Reactor {
 public:
  void OnWriteDone(bool ok) final;
  void OnCancel() final;
  void OnDone() final {
    observer_.Finish(status_, stages_);
    delete this;
  }

 protected:
  // `rpc`, `served_model`, `request_bytes`: see CallObserver. All outlive the call.
  StreamCall(telemetry::Metrics& metrics, admission::WorkQueue& queue,
             grpc::CallbackServerContext* call, const std::string& rpc,
             const std::string& served_model, int64_t request_bytes)
      : metrics_(metrics),
        queue_(queue),
        cancellation_(absl::FromChrono(call->deadline())),
        observer_(metrics, rpc, served_model, request_bytes) {}

  // The work. Its status is the call's; exceptions become one.
  virtual absl::Status Run() = 0;

  // Gives back what only Run needs, as early as possible: after Run, or instead of it.
  virtual void ReleaseInput() {}

  // Puts Run on the queue, or ends the call when the queue does not take it.
  void Enqueue();

  // Ends a call that is not enqueued. OnDone may follow at once.
  void End(const absl::Status& status) {
    ReleaseInput();
    Close(status);
  }

  // Sends one message, after waiting for room. An error when nobody reads any more.
  absl::Status Send(Response message);

  telemetry::Metrics& metrics() { return metrics_; }
  const CancellationToken& cancellation() const { return cancellation_; }
  CallObserver& observer() { return observer_; }
  StageTimes& stages() { return stages_; }

 private:
  void Work();
  void Close(const absl::Status& status);
  // Once per call, by whoever notices first: gRPC, or the work that looks at its deadline.
  void CountCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  telemetry::Metrics& metrics_;
  admission::WorkQueue& queue_;
  CancellationToken cancellation_;
  CallObserver observer_;
  StageTimes stages_;
  absl::Time enqueued_;

  absl::Mutex mutex_;
  std::deque<Response> pending_ ABSL_GUARDED_BY(mutex_);  // The first is being written.
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // Nobody reads any more.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool queued_ ABSL_GUARDED_BY(mutex_) = false;  // Waits for Run, which may use the input.
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  const char* stage_ ABSL_GUARDED_BY(mutex_) = "receiving";
  absl::Status status_;  // Constant once `ended_`.
};

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::Enqueue() {
  enqueued_ = absl::Now();
  {
    absl::MutexLock lock(&mutex_);
    queued_ = true;
    stage_ = "queued";
  }
  metrics_.queue_requests.Add({observer_.model(), "normal"}, 1);
  const absl::Status queued = queue_.Submit([this] { Work(); });
  if (queued.ok()) return;
  metrics_.queue_requests.Add({observer_.model(), "normal"}, -1);
  const bool full = queued.code() == absl::StatusCode::kResourceExhausted;
  metrics_.requests_shed.Increment({observer_.model(), full ? "queue_requests" : "drain"});
  bool held = false;
  {
    absl::MutexLock lock(&mutex_);
    held = std::exchange(queued_, false);
  }
  if (held) ReleaseInput();
  Close(queued);
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::Work() {
  metrics_.queue_requests.Add({observer_.model(), "normal"}, -1);
  const absl::Duration waited = absl::Now() - enqueued_;
  metrics_.queue_wait.Observe({observer_.model()}, absl::ToDoubleSeconds(waited));
  stages_.Add("queue", waited);
  bool held = false;
  {
    absl::MutexLock lock(&mutex_);
    held = std::exchange(queued_, false);
    stage_ = "running";
  }
  absl::Status status = absl::CancelledError("cancelled by the caller");
  if (held) {
    status = CatchTorch("profile", [this] { return Run(); });
    ReleaseInput();
  } else if (const absl::Status reason = cancellation_.Check(); !reason.ok()) {
    status = reason;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (status.code() == absl::StatusCode::kDeadlineExceeded) CountCancelled();
    stage_ = "sending";
  }
  Close(status);
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::Close(const absl::Status& status) {
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    ended_ = true;
    finish = !writing_;
  }
  if (finish) this->Finish(ToGrpcStatus(status));
}

template <typename Reactor, typename Response>
absl::Status StreamCall<Reactor, Response>::Send(Response message) {
  const Response* first = nullptr;
  const size_t bytes = message.ByteSizeLong();
  observer_.CountSent(static_cast<int64_t>(bytes));
  {
    absl::MutexLock lock(&mutex_);
    auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return broken_ || pending_bytes_ < kMaxPendingBytes;
    };
    if (!room()) {
      const absl::Time start = absl::Now();
      mutex_.AwaitWithDeadline(absl::Condition(&room), cancellation_.deadline());
      observer_.CountStalled(absl::Now() - start);
    }
    if (broken_ || !room()) {
      const absl::Status reason = cancellation_.Check();
      return reason.ok() ? absl::CancelledError("the caller left") : reason;
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
  if (finish) this->Finish(ToGrpcStatus(status_));
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::OnCancel() {
  cancellation_.Cancel();
  bool held = false;
  {
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    held = std::exchange(queued_, false);
    CountCancelled();
  }
  if (held) ReleaseInput();
}

template <typename Reactor, typename Response>
void StreamCall<Reactor, Response>::CountCancelled() {
  if (std::exchange(cancelled_, true)) return;
  metrics_.requests_cancelled.Increment({observer_.model(), stage_});
}

}  // namespace ess::rpc
