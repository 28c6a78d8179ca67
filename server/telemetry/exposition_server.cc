#include "server/telemetry/exposition_server.h"

#include <exception>

#include "fmt/format.h"
#include "prometheus/exposer.h"
#include "server/telemetry/metrics.h"
#include "server/telemetry/process_metrics.h"

namespace ess::telemetry {

ExpositionServer::ExpositionServer() = default;
ExpositionServer::~ExpositionServer() = default;

absl::StatusOr<std::unique_ptr<ExpositionServer>> ExpositionServer::Start(
    const std::string& address, const Metrics& metrics) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(
        fmt::format("metrics_listen: '{}' is not HOST:PORT", address));
  }
  auto server = std::unique_ptr<ExpositionServer>(new ExpositionServer);
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/2);
  } catch (const std::exception&) {  // CivetException carries no reason.
    return absl::UnavailableError(fmt::format(
        "metrics_listen: cannot listen on {}: the port is in use or the address is not local",
        address));
  }
  server->metrics_ = metrics.collectable();
  server->process_ = MakeProcessMetrics();
  server->exposer_->RegisterCollectable(server->metrics_);
  server->exposer_->RegisterCollectable(server->process_);
  server->address_ =
      fmt::format("{}:{}", address.substr(0, colon), server->exposer_->GetListeningPorts().front());
  return server;
}

}  // namespace ess::telemetry
