#include "server/rpc/unary_call.h"

#include "server/base/torch_status.h"

namespace ess::rpc {

grpc::ServerUnaryReactor* UnaryCall::Start(const CallServices& services,
                                           grpc::CallbackServerContext* call,
                                           const std::string& rpc, const std::string& served_model,
                                           Work work, admission::WorkQueue* queue) {
  auto* unary = new UnaryCall(services, call, rpc, served_model, std::move(work));
  if (const absl::Status& admitted = unary->observer_.admitted(); !admitted.ok()) {
    unary->End(admitted);
    return unary;
  }
  auto run = [unary, rpc] {
    unary->End(CatchTorch(
        rpc, [unary] { return unary->work_(unary->cancellation_, unary->observer_.identity()); }));
  };
  if (queue == nullptr) {
    run();
  } else if (const absl::Status queued = queue->Submit(run); !queued.ok()) {
    unary->End(queued);
  }
  return unary;
}

}  // namespace ess::rpc
