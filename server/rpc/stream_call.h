// Calls that stream their answer: work on a queue thread makes messages, gRPC takes them one by
// one.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "server/admission/request_queue.h"
#include "server/base/cancellation.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/call_services.h"
#include "server/rpc/queued_work.h"
#include "server/rpc/stream_writer.h"

namespace ess::rpc {

// Base of such a call. `Reactor` and `Response`: see StreamWriter.
//
// Life: Start -> Begin -> [reading] -> that of QueuedWork -> OnDone. gRPC calls OnWriteDone and
// OnCancel from its own threads meanwhile. The call owns itself until OnDone; who calls back later
// holds a share.
template <typename Reactor, typename Response>
class StreamCall : public Reactor, public QueuedWork {
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

  void OnWriteDone(bool ok) final {
    if (!ok) token_.Cancel();
    writer_.OnWriteDone(ok);
  }

  void OnCancel() final {
    const absl::Status reason = context_.services.calls.Cancel(token_);
    Cancelled(reason);  // Before the work learns of it: counted in the stage that it is in.
    writer_.Break();
  }

  void OnDone() final {
    observer_.Finish(writer_.status(), stages());
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
      : QueuedWork(context.queue, context.services.metrics, token_, served_model),
        context_(context),
        token_(DeadlineOf(context.services, *call)),
        observer_(context.services, *call, token_, rpc, served_model, request_bytes),
        writer_(*this, *call, observer_, token_, context.longest_stall) {}

  // Begins to read, enqueues, or ends the call.
  virtual void Begin() = 0;

  // Takes a place in the queue, or ends the call. Whether it has one: StartQueued follows.
  bool Enqueue(admission::Priority priority, int64_t tokens) {
    return QueuedWork::Enqueue(observer_.caller(), priority, tokens);
  }

  // See StreamWriter.
  absl::Status Send(Response message) { return writer_.Send(std::move(message), *this); }
  absl::Status AwaitReader(absl::FunctionRef<void()> release) {
    return writer_.AwaitReader(release, *this);
  }

  CallObserver& observer() { return observer_; }
  const Identity& identity() const { return observer_.identity(); }

 private:
  void OnEnded(const absl::Status& status) final {
    writer_.Close(context_.services.calls.StatusOf(status));
  }

  const Context context_;
  std::shared_ptr<StreamCall> self_;
  CancellationToken token_;
  CallObserver observer_;
  StreamWriter<Reactor, Response> writer_;
};

}  // namespace ess::rpc
