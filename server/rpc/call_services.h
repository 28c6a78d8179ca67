// What every call of every service needs.
#pragma once

#include "server/rpc/access.h"
#include "server/rpc/open_calls.h"
#include "server/telemetry/metrics.h"

namespace ess::rpc {

// All outlive the calls.
struct CallServices {
  telemetry::Metrics& metrics;
  OpenCalls& calls;
  const Access& access;
};

}  // namespace ess::rpc
