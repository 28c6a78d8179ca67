// What grpc.health.v1 says of this server.
#pragma once

#include <grpcpp/health_check_service_interface.h>

#include <atomic>

namespace ess {

// "" and the names of the services say whether the server takes new work; "liveness" whether it can
// work at all, so that a supervisor does not restart one that loads its models or drains. Watchers
// see each change. Thread-safe.
class Health {
 public:
  // Live, not ready. Made right after the ports are open. `service` outlives this.
  // `ready` is kept at what SetReady says.
  Health(grpc::HealthCheckServiceInterface& service, std::atomic<bool>& ready);

  void SetReady(bool ready);
  // For good: nothing is SERVING any more.
  void SetDead();

 private:
  grpc::HealthCheckServiceInterface& service_;
  std::atomic<bool>& ready_;
};

}  // namespace ess
