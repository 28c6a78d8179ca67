#include "server/rpc/unary_call.h"

#include <atomic>

#include "server/base/torch_status.h"

namespace ess::rpc {

grpc::ServerUnaryReactor* UnaryCall::Start(const CallServices& services,
                                           grpc::CallbackServerContext* call,
                                           const std::string& rpc, const std::string& served_model,
                                           Work work, admission::WorkQueue* queue) {
  auto* const unary = new UnaryCall(services, call, rpc, served_model);
  if (const absl::Status& admitted = unary->observer_.admitted(); !admitted.ok()) {
    unary->End(admitted);
    return unary;
  }
  auto run = [unary, rpc, work = std::move(work)] {
    unary->End(
        CatchTorch(rpc, [&] { return work(*unary->cancellation_, unary->observer_.identity()); }));
  };
  if (queue == nullptr) {
    run();
  } else if (const absl::Status queued = queue->Submit(run); !queued.ok()) {
    unary->End(queued);
  }
  return unary;
}

grpc::ServerUnaryReactor* UnaryCall::StartAsync(const CallServices& services,
                                                grpc::CallbackServerContext* call,
                                                const std::string& rpc,
                                                const std::string& served_model, AsyncWork work,
                                                admission::WorkQueue& queue) {
  auto* const unary = new UnaryCall(services, call, rpc, served_model);
  if (const absl::Status& admitted = unary->observer_.admitted(); !admitted.ok()) {
    unary->End(admitted);
    return unary;
  }
  const absl::Status queued = queue.SubmitWithPlace(
      [unary, rpc, work = std::move(work)](const admission::WorkQueue::Place& place) {
        // An exception may come before `done` was called, or after.
        const auto ended = std::make_shared<std::atomic<bool>>(false);
        const auto end = [unary, ended, place](const absl::Status& status) {
          if (!ended->exchange(true)) unary->End(status);
        };
        const absl::Status begun = CatchTorch(rpc, [&] {
          work(unary->cancellation_, end);
          return absl::OkStatus();
        });
        if (!begun.ok()) end(begun);
      });
  if (!queued.ok()) unary->End(queued);
  return unary;
}

}  // namespace ess::rpc
