#include "server/app/serve.h"

#include <cstdlib>
#include <optional>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/app/supervisor.h"
#include "server/base/device_failure.h"
#include "server/base/log.h"

namespace ess {
namespace {

// How often a wait looks for what does not wake it.
constexpr absl::Duration kPoll = absl::Milliseconds(100);

// Waits for one of `signals`, at most for `limit`. Returns it, or 0.
int AwaitSignal(const sigset_t& signals, absl::Duration limit) {
  const timespec wait = absl::ToTimespec(limit);
  const int signal = sigtimedwait(&signals, nullptr, &wait);
  return signal > 0 ? signal : 0;
}

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

// Steps 1 and 2 of a drain that began at `start`.
void Drain(Server& server, const v1::ServerConfig& config, const sigset_t& signals,
           absl::Time start) {
  const absl::Time limit = start + absl::Seconds(config.drain_seconds());
  NotifySupervisor("STOPPING=1");
  server.StopServing();
  if (AwaitSignal(signals, absl::Seconds(config.drain_delay_seconds())) != 0) {
    ESS_LOG(info, "a second signal: ending at once");
    return;
  }
  server.RefuseWork();
  ESS_LOG(info, "refusing new work after {:.2f} s", SecondsSince(start));
  size_t open = server.AwaitCalls(absl::ZeroDuration());
  while (open > 0 && absl::Now() < limit) {
    if (AwaitSignal(signals, absl::ZeroDuration()) != 0) {
      ESS_LOG(info, "a second signal: ending {} calls at once", open);
      return;
    }
    open = server.AwaitCalls(kPoll);
  }
  if (open > 0) {
    ESS_LOG(warn, "{} calls have not ended within {:.2f} s (drain_seconds); ending them", open,
            SecondsSince(start));
  } else {
    ESS_LOG(info, "all calls have ended after {:.2f} s", SecondsSince(start));
  }
}

[[noreturn]] void EndAfterDeviceFailure(Server& server, const v1::ServerConfig& config,
                                        const sigset_t& signals, const std::string& error) {
  server.ReportDeviceFailure();
  ESS_LOG(critical,
          "the device has failed: {}; nothing can run any more, ending in {:g} s with exit code {}",
          error, config.device_failure_seconds(), kDeviceFailureExitCode);
  AwaitSignal(signals, absl::Seconds(config.device_failure_seconds()));
  server.EndCalls();
  // Not through destructors: they would wait for work and free memory on a device that may hang.
  std::_Exit(kDeviceFailureExitCode);
}

}  // namespace

int Serve(Server& server, const v1::ServerConfig& config, const sigset_t& signals) {
  int signal = 0;
  std::optional<std::string> failure;
  do {
    signal = AwaitSignal(signals, kPoll);
    failure = DeviceFailure();
  } while (signal == 0 && !failure);
  if (failure) EndAfterDeviceFailure(server, config, signals, *failure);

  const absl::Time start = absl::Now();
  ESS_LOG(info, "draining after signal {}; a second one ends at once", signal);
  Drain(server, config, signals, start);
  server.EndCalls();
  server.Shutdown();
  ESS_LOG(info, "ended {:.2f} s after the signal", SecondsSince(start));
  return 0;
}

}  // namespace ess
