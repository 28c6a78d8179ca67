// Base of the calls about jobs that stream: their steps run one after the other on the jobs' queue.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/cancellation.h"
#include "server/base/torch_status.h"
#include "server/rpc/call_alarm.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/jobs_handler.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {

// `Reactor` is a gRPC reactor. Life: Start -> Begin -> steps, each from a reaction of gRPC or of
// the feed -> End, once -> OnDone. The call owns itself until OnDone; who calls back later holds a
// share.
template <typename Reactor>
class JobCall : public Reactor, public std::enable_shared_from_this<JobCall<Reactor>> {
 public:
  template <typename Call, typename... Arguments>
  static Call* Start(Arguments&&... arguments) {
    const auto made = std::make_shared<Call>(std::forward<Arguments>(arguments)...);
    JobCall& call = *made;
    call.self_ = made;
    absl::Status status = call.observer_.admitted();
    if (status.ok()) status = CheckHasJobs(call.context_);
    if (!status.ok()) {
      call.End(status);
    } else {
      call.Begin();
    }
    return made.get();
  }

  void OnCancel() override { cancellation_.Cancel(); }
  void OnDone() final {
    stall_.reset();
    Closed();
    observer_.Finish(status_);
    const std::shared_ptr<JobCall> last = std::move(self_);
  }

 protected:
  JobCall(const JobsContext& context, grpc::CallbackServerContext* call, const char* rpc)
      : context_(context),
        call_(*call),
        cancellation_(DeadlineOf(context.services, *call)),
        observer_(context.services, *call, cancellation_, rpc, "", 0) {}

  virtual void Begin() = 0;
  // Before the call goes.
  virtual void Closed() {}

  // Runs `step` on the queue; ends the call when it is full. Exceptions end the call, too.
  template <typename Step>
  void Queue(Step step) {
    auto work = [call = this->shared_from_this(), step = std::move(step)] {
      const absl::Status status = CatchTorch("job", [&] {
        step();
        return absl::OkStatus();
      });
      if (!status.ok()) call->End(status);
    };
    if (const absl::Status queued = context_.queue.Submit(std::move(work)); !queued.ok()) {
      End(queued);
    }
  }

  // Nothing happens when the call has ended. REQUIRES: no read or write is under way.
  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      if (ended_) return;
      ended_ = true;
      status_ = context_.services.calls.StatusOf(status);
    }
    this->Finish(ToGrpcStatus(status_));
  }

  // Writes a message, which lives until it is written. The call is cancelled when it is not taken
  // in time.
  template <typename Message>
  void Write(const Message& message) {
    observer_.CountSent(static_cast<int64_t>(message.ByteSizeLong()));
    stall_.emplace(call_, absl::Now() + context_.longest_stall);
    this->StartWrite(&message);
  }
  // To be told in OnWriteDone.
  void Written(bool ok) {
    stall_.reset();
    if (!ok) cancellation_.Cancel();
  }

  const JobsContext& context_;
  grpc::CallbackServerContext& call_;
  CancellationToken cancellation_;
  CallObserver observer_;

 private:
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // Constant once `ended_`.
  std::optional<CallAlarm> stall_;
  std::shared_ptr<JobCall> self_;
};

}  // namespace ess::rpc
