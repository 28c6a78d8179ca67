// What is recorded of one request for work: metrics at its start and end, and one log line. A call
// has one request, but for streams of requests.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "server/pipeline/stage_times.h"
#include "server/rpc/trace_context.h"
#include "server/telemetry/metrics.h"

namespace ess::rpc {

// 16 hexadecimal digits, drawn.
std::string NewRequestId();

// From the arrival of a request to its end. Not thread-safe.
class RequestObserver {
 public:
  struct Origin {
    std::string rpc;           // The method's name.
    std::string served_model;  // A name the server serves, or "": the label.
    std::string request_id;
    std::string caller;
    TraceContext trace;
  };

  // `metrics` outlives this.
  RequestObserver(telemetry::Metrics& metrics, Origin origin);
  // A request that was not finished counts as cancelled.
  ~RequestObserver();
  RequestObserver(const RequestObserver&) = delete;
  RequestObserver& operator=(const RequestObserver&) = delete;

  const Origin& origin() const { return origin_; }

  // For the log line: what the request is about, as an object.
  void SetFacts(nlohmann::ordered_json facts) { facts_ = std::move(facts); }

  // Records the end. `stages` goes to the metrics and the log.
  void Finish(const absl::Status& status, const StageTimes& stages = {});
  bool finished() const { return finished_; }

 private:
  telemetry::Metrics& metrics_;
  const Origin origin_;
  const absl::Time start_;
  nlohmann::ordered_json facts_ = nlohmann::ordered_json::object();
  bool finished_ = false;
};

}  // namespace ess::rpc
