#include "server/rpc/call_observer.h"

#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/log.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxErrorBytes = 1024;  // Of a message in the log.

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}", random());
}

}  // namespace

CallObserver::CallObserver(telemetry::Metrics& metrics, std::string rpc, std::string served_model,
                           int64_t request_bytes)
    : metrics_(metrics),
      rpc_(std::move(rpc)),
      model_(std::move(served_model)),
      request_id_(NewRequestId()),
      start_(absl::Now()) {
  metrics_.requests_in_flight.Add({model_, rpc_}, 1);
  metrics_.grpc_started.Increment({rpc_});
  CountReceived(request_bytes);
}

CallObserver::~CallObserver() {
  if (!finished_) Finish(absl::CancelledError("the call ended early"));
}

void CallObserver::CountSent(int64_t bytes) {
  metrics_.grpc_sent_bytes.Increment({rpc_}, static_cast<double>(bytes));
}

void CallObserver::CountReceived(int64_t bytes) {
  metrics_.grpc_received_bytes.Increment({rpc_}, static_cast<double>(bytes));
}

void CallObserver::CountStalled(absl::Duration time) {
  metrics_.stream_stalled.Increment({rpc_}, absl::ToDoubleSeconds(time));
}

void CallObserver::Finish(const absl::Status& status, const StageTimes& stages) {
  finished_ = true;
  const std::string code = absl::StatusCodeToString(status.code());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  metrics_.requests_in_flight.Add({model_, rpc_}, -1);
  metrics_.requests.Increment({model_, rpc_, code});
  metrics_.request_duration.Observe({model_, rpc_}, seconds);
  std::string times;
  for (const auto& [stage, stage_seconds] : stages.seconds()) {
    metrics_.stage_duration.Observe({model_, stage}, stage_seconds);
    times += fmt::format(" {}={:.4f}s", stage, stage_seconds);
  }
  metrics_.grpc_handled.Increment({rpc_, code});  // Last: what it counts has been counted whole.
  // Messages of our errors name fields and limits, never prompt text. They quote names that callers
  // chose: escaped, so that a line stays one line, and cut.
  ESS_LOG(info, "request id={} rpc={} model={}{}{} code={} seconds={:.4f}{}{}", request_id_, rpc_,
          model_, facts_.empty() ? "" : " ", facts_, code, seconds, times,
          status.ok() ? std::string()
                      : fmt::format(" error=\"{}\"", absl::Utf8SafeCEscape(status.message().substr(
                                                         0, kMaxErrorBytes))));
}

}  // namespace ess::rpc
