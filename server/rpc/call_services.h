// What every call of every service needs.
#pragma once

#include <grpcpp/server_context.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/rpc/access.h"
#include "server/rpc/open_calls.h"
#include "server/telemetry/metrics.h"

namespace ess::rpc {

// All outlive the calls.
struct CallServices {
  telemetry::Metrics& metrics;
  OpenCalls& calls;
  const Access& access;
  absl::Duration longest_call;  // Ends by itself after that.
};

// When a call that arrives now has to be over: what its caller says, and at most longest_call.
inline absl::Time DeadlineOf(const CallServices& services,
                             const grpc::CallbackServerContext& call) {
  return std::min(absl::FromChrono(call.deadline()), absl::Now() + services.longest_call);
}

}  // namespace ess::rpc
