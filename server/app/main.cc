// ess_server: configuration -> server -> serve -> drain.

#include <signal.h>

#include <cstdio>
#include <string>

#include "server/app/flags.h"
#include "server/app/openmp_wait.h"
#include "server/app/server.h"
#include "server/base/log.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace {

// How often a drain looks for a second signal.
constexpr absl::Duration kSignalPoll = absl::Milliseconds(100);

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "ess_server: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  // Standard output carries the ready line only.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("ess_server"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");

  ess::RestartWithShortOpenMpSpin(argv);

  // All threads inherit the mask, so that only the waits below see these signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const absl::StatusOr<ess::v1::ServerConfig> config = ess::ReadServerConfig(argc, argv);
  if (!config.ok()) return Fail(config.status());
  absl::StatusOr<std::unique_ptr<ess::Server>> server = ess::Server::Start(*config);
  if (!server.ok()) return Fail(server.status());
  std::printf("ess_server ready grpc=%s metrics=%s\n", (*server)->grpc_address().c_str(),
              (*server)->metrics_address().c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  ESS_LOG(info, "draining after signal {}; a second one ends at once", signal);
  const timespec no_wait = {};
  absl::Duration left = absl::Seconds(config->drain_seconds());
  bool drained = (*server)->Drain(absl::ZeroDuration());
  while (!drained && left > absl::ZeroDuration() && sigtimedwait(&signals, nullptr, &no_wait) < 0) {
    drained = (*server)->Drain(kSignalPoll);
    left -= kSignalPoll;
  }
  ESS_LOG(info, "{}", drained ? "drained" : "not drained in time; running calls are cancelled");
  (*server)->Shutdown();
  return 0;
}
