// What is recorded of every call: metrics at its start and end, and one log line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/pipeline/stage_times.h"
#include "server/telemetry/metrics.h"

namespace ess::rpc {

// From the arrival of a call to its end. Not thread-safe.
class CallObserver {
 public:
  // `rpc` is the method's name. `served_model` is the label: a name the server serves, or "".
  CallObserver(telemetry::Metrics& metrics, std::string rpc, std::string served_model,
               int64_t request_bytes);
  // A call that was not finished counts as cancelled.
  ~CallObserver();
  CallObserver(const CallObserver&) = delete;
  CallObserver& operator=(const CallObserver&) = delete;

  const std::string& request_id() const { return request_id_; }
  const std::string& model() const { return model_; }

  void CountSent(int64_t bytes);
  void CountStalled(absl::Duration time);
  void CountReceived(int64_t bytes);
  // For the log line: what the call is about, as "name=value name=value".
  void SetFacts(std::string facts) { facts_ = std::move(facts); }

  // Records the end. `stages` goes to the metrics and the log.
  void Finish(const absl::Status& status, const StageTimes& stages = {});

 private:
  telemetry::Metrics& metrics_;
  const std::string rpc_;
  const std::string model_;
  const std::string request_id_;
  const absl::Time start_;
  std::string facts_;
  bool finished_ = false;
};

}  // namespace ess::rpc
