// ess_server: configuration -> server -> serve -> drain.

#include <signal.h>

#include <cstdio>
#include <string>

#include "server/app/flags.h"
#include "server/app/openmp_wait.h"
#include "server/app/serve.h"
#include "server/app/server.h"
#include "server/app/supervisor.h"
#include "server/base/structured_log.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "ess_server: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  // Standard output carries the ready line only.
  ess::StartLog(ess::LogFormat::kText);

  ess::RestartWithShortOpenMpSpin(argv);

  // All threads inherit the mask, so that only the waits below see these signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const absl::StatusOr<ess::v1::ServerConfig> config = ess::ReadServerConfig(argc, argv);
  if (!config.ok()) return Fail(config.status());
  if (config->log_format() == "json") ess::StartLog(ess::LogFormat::kJson);
  absl::StatusOr<std::unique_ptr<ess::Server>> server = ess::Server::Start(*config);
  if (!server.ok()) return Fail(server.status());
  std::printf("ess_server ready grpc=%s metrics=%s\n", (*server)->grpc_address().c_str(),
              (*server)->metrics_address().c_str());
  std::fflush(stdout);
  ess::NotifySupervisor("READY=1");

  return ess::Serve(**server, *config, signals);
}
