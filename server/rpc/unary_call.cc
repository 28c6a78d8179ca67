#include "server/rpc/unary_call.h"

#include "server/base/torch_status.h"

namespace ess::rpc {

grpc::ServerUnaryReactor* UnaryCall::Start(const CallServices& services,
                                           grpc::CallbackServerContext* call,
                                           const std::string& rpc, const std::string& served_model,
                                           Work work, admission::WorkQueue* queue) {
  auto* const unary = new UnaryCall(services, call, rpc, served_model);
  unary->Begin(queue, [unary, rpc, work = std::move(work)] {
    unary->End(CatchTorch(
        rpc, [&] { return work(*unary->cancellation_, unary->observer_.identity()); }));
  });
  return unary;
}

grpc::ServerUnaryReactor* UnaryCall::StartAsync(const CallServices& services,
                                                grpc::CallbackServerContext* call,
                                                const std::string& rpc,
                                                const std::string& served_model, AsyncWork work,
                                                admission::WorkQueue& queue) {
  auto* const unary = new UnaryCall(services, call, rpc, served_model);
  unary->Begin(&queue, [unary, work = std::move(work)] {
    work(unary->cancellation_, [unary](const absl::Status& status) { unary->End(status); });
  });
  return unary;
}

void UnaryCall::Begin(admission::WorkQueue* queue, const std::function<void()>& run) {
  if (const absl::Status& admitted = observer_.admitted(); !admitted.ok()) {
    End(admitted);
  } else if (queue == nullptr) {
    run();
  } else if (const absl::Status queued = queue->Submit(run); !queued.ok()) {
    End(queued);
  }
}

}  // namespace ess::rpc
