// From the ready line to the exit code.
#pragma once

#include <signal.h>

#include "ess/v1/server.pb.h"
#include "server/app/server.h"

namespace ess {

// Exit code after a device failure: a new process may work where this one cannot.
inline constexpr int kDeviceFailureExitCode = 3;

// Serves until one of `signals`, which all threads block, then drains (docs/operations.md):
//   1. health says NOT_SERVING, and nothing else changes for drain_delay_seconds;
//   2. new work is UNAVAILABLE, calls that are open go on, up to drain_seconds after the signal;
//   3. what is left is ended, each call with a status.
// A second signal skips to 3. Returns the exit code, 0.
//
// When the device fails, health says NOT_SERVING under every name and new work is UNAVAILABLE; the
// process ends after device_failure_seconds or at a signal, from in here, with
// kDeviceFailureExitCode.
int Serve(Server& server, const v1::ServerConfig& config, const sigset_t& signals);

}  // namespace ess
