// Calls with one request and one answer.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "server/admission/work_queue.h"
#include "server/base/cancellation.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {

// Deletes itself in OnDone.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  using Work =
      std::function<absl::Status(const CancellationToken& cancellation, const Identity& caller)>;
  using Done = std::function<void(const absl::Status& status)>;
  using AsyncWork =
      std::function<void(std::shared_ptr<const CancellationToken> cancellation, Done done)>;

  // `served_model`: see CallObserver. With a queue the work runs there, else at once; for a caller
  // who is refused it never runs.
  static grpc::ServerUnaryReactor* Start(const CallServices& services,
                                         grpc::CallbackServerContext* call, const std::string& rpc,
                                         const std::string& served_model, Work work,
                                         admission::WorkQueue* queue = nullptr);

  // The same for work that waits on no thread: begun on the queue, it calls `done` exactly once,
  // from any thread, and keeps its place there until then.
  static grpc::ServerUnaryReactor* StartAsync(const CallServices& services,
                                              grpc::CallbackServerContext* call,
                                              const std::string& rpc,
                                              const std::string& served_model, AsyncWork work,
                                              admission::WorkQueue& queue);

  void OnCancel() override { cancellation_->Cancel(); }
  void OnDone() override {
    observer_.Finish(status_);
    delete this;
  }

 private:
  UnaryCall(const CallServices& services, grpc::CallbackServerContext* call, const std::string& rpc,
            const std::string& served_model)
      : cancellation_(std::make_shared<CancellationToken>(DeadlineOf(services, *call))),
        calls_(services.calls),
        observer_(services, *call, *cancellation_, rpc, served_model, 0) {}

  void End(const absl::Status& status) {
    status_ = calls_.StatusOf(status);
    Finish(ToGrpcStatus(status_));
  }

  const std::shared_ptr<CancellationToken> cancellation_;
  OpenCalls& calls_;
  CallObserver observer_;
  absl::Status status_;
};

// A call of any kind to a method that this server does not have yet. Deletes itself in OnDone.
template <typename Reactor>
class UnimplementedCall : public Reactor {
 public:
  UnimplementedCall(const CallServices& services, grpc::CallbackServerContext* call,
                    const std::string& rpc)
      : observer_(services, *call, cancellation_, rpc, "", 0), status_(observer_.admitted()) {
    if (status_.ok()) {
      status_ = absl::UnimplementedError(rpc + " is not available in this version of the server");
    }
    this->Finish(ToGrpcStatus(status_));
  }
  void OnDone() override {
    observer_.Finish(status_);
    delete this;
  }

 private:
  CancellationToken cancellation_;
  CallObserver observer_;
  absl::Status status_;
};

}  // namespace ess::rpc
