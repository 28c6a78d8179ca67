#include "server/rpc/request_observer.h"

#include <cmath>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/structured_log.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxErrorBytes = 1024;  // Of a message in the log.

// To 0.1 ms.
double Rounded(double seconds) { return std::round(seconds * 1e4) / 1e4; }

}  // namespace

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}", random());
}

RequestObserver::RequestObserver(telemetry::Metrics& metrics, Origin origin)
    : metrics_(metrics), origin_(std::move(origin)), start_(absl::Now()) {
  metrics_.requests_in_flight.Add({origin_.served_model, origin_.rpc}, 1);
}

RequestObserver::~RequestObserver() {
  if (!finished_) Finish(absl::CancelledError("the call ended early"));
}

void RequestObserver::Finish(const absl::Status& status, const StageTimes& stages) {
  finished_ = true;
  const std::string& model = origin_.served_model;
  const std::string code = absl::StatusCodeToString(status.code());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  metrics_.requests_in_flight.Add({model, origin_.rpc}, -1);
  metrics_.requests.Increment({model, origin_.rpc, code});
  metrics_.request_duration.Observe({model, origin_.rpc}, seconds);
  nlohmann::ordered_json times = nlohmann::ordered_json::object();
  for (const auto& [stage, stage_seconds] : stages.seconds()) {
    metrics_.stage_duration.Observe({model, stage}, stage_seconds);
    times[stage] = Rounded(stage_seconds);
  }
  nlohmann::ordered_json fields = {{"id", origin_.request_id},
                                   {"rpc", origin_.rpc},
                                   {"model", model},
                                   {"caller", origin_.caller}};
  const TraceContext& trace = origin_.trace;
  if (!trace.traceparent.empty()) fields["traceparent"] = trace.traceparent;
  if (!trace.client_request_id.empty()) fields["client_request_id"] = trace.client_request_id;
  fields.update(facts_);
  fields["code"] = code;
  fields["seconds"] = Rounded(seconds);
  fields["stages"] = std::move(times);
  // Messages of our errors name fields and limits, never prompt text. They quote names that callers
  // chose: cut.
  if (!status.ok()) fields["error"] = std::string(status.message().substr(0, kMaxErrorBytes));
  LogEvent("request", fields);
}

}  // namespace ess::rpc
