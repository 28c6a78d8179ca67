// Ends calls that would wait for their caller past a deadline of ours.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <memory>

#include "absl/time/time.h"

namespace ess::rpc {

// gRPC watches the deadline that the caller brings. At an earlier one of ours the call is
// cancelled, so that it is woken whatever it waits for.
class CallAlarm {
 public:
  CallAlarm(grpc::CallbackServerContext& call, absl::Time deadline);
  ~CallAlarm() { Stop(); }

  // Before gRPC lets go of the call, when it is done with it.
  void Stop();

 private:
  struct Target;
  std::shared_ptr<Target> target_;  // Null: no alarm is needed.
  grpc::Alarm alarm_;
};

}  // namespace ess::rpc
