#include "server/rpc/call_observer.h"

#include <utility>

#include "server/rpc/caller.h"
#include "server/rpc/trace_context.h"

namespace ess::rpc {

CallObserver::CallObserver(const CallServices& services, grpc::CallbackServerContext& call,
                           CancellationToken& cancellation, std::string rpc,
                           std::string served_model, int64_t request_bytes)
    : services_(services),
      cancellation_(cancellation),
      identity_(services_.access.Check(call, rpc)),
      request_(services.metrics,
               {.rpc = std::move(rpc),
                .served_model = std::move(served_model),
                .request_id = NewRequestId(),
                .caller = CallerOf(call, identity_.ok() ? identity_->subject : ""),
                .trace = TraceContextOf(call)}),
      alarm_(call, cancellation.deadline()) {
  services_.calls.Opened(cancellation_);
  call.AddTrailingMetadata(kRequestIdMetadata, request_id());
  services_.metrics.grpc_started.Increment({origin().rpc});
  CountReceived(request_bytes);
}

CallObserver::~CallObserver() {
  if (!request_.finished()) Finish(absl::CancelledError("the call ended early"));
}

void CallObserver::CountSent(int64_t bytes) {
  services_.metrics.grpc_sent_bytes.Increment({origin().rpc}, static_cast<double>(bytes));
}

void CallObserver::CountReceived(int64_t bytes) {
  services_.metrics.grpc_received_bytes.Increment({origin().rpc}, static_cast<double>(bytes));
}

void CallObserver::CountStalled(absl::Duration time) {
  services_.metrics.stream_stalled.Increment({origin().rpc}, absl::ToDoubleSeconds(time));
}

void CallObserver::Finish(const absl::Status& status, const StageTimes& stages) {
  alarm_.Stop();
  request_.Finish(status, stages);
  // Last: what it counts has been counted whole, and logged.
  services_.metrics.grpc_handled.Increment(
      {origin().rpc, std::string(absl::StatusCodeToString(status.code()))});
  services_.calls.Closed(cancellation_);
}

}  // namespace ess::rpc
