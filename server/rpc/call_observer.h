// What every call begins and ends with: whether the caller may, metrics, and one log line.
#pragma once

#include <grpcpp/server_context.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "server/pipeline/stage_times.h"
#include "server/rpc/call_alarm.h"
#include "server/rpc/call_services.h"
#include "server/rpc/request_observer.h"

namespace ess::rpc {

// From the arrival of a call to its end. Not thread-safe.
class CallObserver {
 public:
  // `rpc` is the method's name. `served_model` is the label: a name the server serves, or "".
  // Puts the request's id into the trailing metadata of `call`. `services.calls` may cancel
  // `cancellation`, which is the call's, until the call is finished.
  CallObserver(const CallServices& services, grpc::CallbackServerContext& call,
               CancellationToken& cancellation, std::string rpc, std::string served_model,
               int64_t request_bytes);
  // A call that was not finished counts as cancelled.
  ~CallObserver();
  CallObserver(const CallObserver&) = delete;
  CallObserver& operator=(const CallObserver&) = delete;

  // Whether the caller may make this call. If not, the call ends with this status, and nothing else
  // happens.
  const absl::Status& admitted() const { return identity_.status(); }
  // Who calls. Only when admitted.
  const Identity& identity() const { return *identity_; }

  const std::string& request_id() const { return request_.origin().request_id; }
  const std::string& model() const { return request_.origin().served_model; }
  const std::string& caller() const { return request_.origin().caller; }
  // Who asks for what, to make that of further requests of the call.
  const RequestObserver::Origin& origin() const { return request_.origin(); }

  void CountSent(int64_t bytes);
  void CountStalled(absl::Duration time);
  void CountReceived(int64_t bytes);
  // For the log line: what the call is about, as an object.
  void SetFacts(nlohmann::ordered_json facts) { request_.SetFacts(std::move(facts)); }

  // Records the end. `stages` goes to the metrics and the log.
  void Finish(const absl::Status& status, const StageTimes& stages = {});

 private:
  const CallServices services_;
  CancellationToken& cancellation_;
  const absl::StatusOr<Identity> identity_;
  RequestObserver request_;
  CallAlarm alarm_;
};

}  // namespace ess::rpc
