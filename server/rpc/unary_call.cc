#include "server/rpc/unary_call.h"

#include "server/base/torch_status.h"

namespace ess::rpc {

grpc::ServerUnaryReactor* UnaryCall::Start(telemetry::Metrics& metrics, OpenCalls& calls,
                                           grpc::CallbackServerContext* call,
                                           const std::string& rpc, const std::string& served_model,
                                           Work work, admission::WorkQueue* queue) {
  auto* unary = new UnaryCall(metrics, calls, call, rpc, served_model, std::move(work));
  auto run = [unary, rpc] {
    unary->End(CatchTorch(rpc, [unary] { return unary->work_(unary->cancellation_); }));
  };
  if (queue == nullptr) {
    run();
  } else if (const absl::Status queued = queue->Submit(run); !queued.ok()) {
    unary->End(queued);
  }
  return unary;
}

}  // namespace ess::rpc
