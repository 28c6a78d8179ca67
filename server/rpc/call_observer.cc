#include "server/rpc/call_observer.h"

#include <cmath>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/structured_log.h"
#include "server/rpc/caller.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxErrorBytes = 1024;  // Of a message in the log.

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}", random());
}

// To 0.1 ms.
double Rounded(double seconds) { return std::round(seconds * 1e4) / 1e4; }

}  // namespace

CallObserver::CallObserver(const CallServices& services, grpc::CallbackServerContext& call,
                           CancellationToken& cancellation, std::string rpc,
                           std::string served_model, int64_t request_bytes)
    : services_(services),
      cancellation_(cancellation),
      rpc_(std::move(rpc)),
      model_(std::move(served_model)),
      identity_(services_.access.Check(call, rpc_)),
      request_id_(NewRequestId()),
      caller_(CallerOf(call, identity_.ok() ? identity_->subject : "")),
      trace_(TraceContextOf(call)),
      start_(absl::Now()) {
  services_.calls.Opened(cancellation_);
  call.AddTrailingMetadata(kRequestIdMetadata, request_id_);
  services_.metrics.requests_in_flight.Add({model_, rpc_}, 1);
  services_.metrics.grpc_started.Increment({rpc_});
  CountReceived(request_bytes);
}

CallObserver::~CallObserver() {
  if (!finished_) Finish(absl::CancelledError("the call ended early"));
}

void CallObserver::CountSent(int64_t bytes) {
  services_.metrics.grpc_sent_bytes.Increment({rpc_}, static_cast<double>(bytes));
}

void CallObserver::CountReceived(int64_t bytes) {
  services_.metrics.grpc_received_bytes.Increment({rpc_}, static_cast<double>(bytes));
}

void CallObserver::CountStalled(absl::Duration time) {
  services_.metrics.stream_stalled.Increment({rpc_}, absl::ToDoubleSeconds(time));
}

void CallObserver::Finish(const absl::Status& status, const StageTimes& stages) {
  finished_ = true;
  const std::string code = absl::StatusCodeToString(status.code());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  services_.metrics.requests_in_flight.Add({model_, rpc_}, -1);
  services_.metrics.requests.Increment({model_, rpc_, code});
  services_.metrics.request_duration.Observe({model_, rpc_}, seconds);
  nlohmann::ordered_json times = nlohmann::ordered_json::object();
  for (const auto& [stage, stage_seconds] : stages.seconds()) {
    services_.metrics.stage_duration.Observe({model_, stage}, stage_seconds);
    times[stage] = Rounded(stage_seconds);
  }
  nlohmann::ordered_json fields = {
      {"id", request_id_}, {"rpc", rpc_}, {"model", model_}, {"caller", caller_}};
  if (!trace_.traceparent.empty()) fields["traceparent"] = trace_.traceparent;
  if (!trace_.client_request_id.empty()) fields["client_request_id"] = trace_.client_request_id;
  fields.update(facts_);
  fields["code"] = code;
  fields["seconds"] = Rounded(seconds);
  fields["stages"] = std::move(times);
  // Messages of our errors name fields and limits, never prompt text. They quote names that callers
  // chose: cut.
  if (!status.ok()) fields["error"] = std::string(status.message().substr(0, kMaxErrorBytes));
  LogEvent("request", fields);
  // Last: what it counts has been counted whole, and logged.
  services_.metrics.grpc_handled.Increment({rpc_, code});
  services_.calls.Closed(cancellation_);
}

}  // namespace ess::rpc
