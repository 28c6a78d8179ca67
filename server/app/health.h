// What grpc.health.v1 says of this server.
#pragma once

#include <grpcpp/health_check_service_interface.h>

namespace ess {

// "" and "ess.v1.EssProfiler" say whether the server takes new work; "liveness" whether it can work
// at all, so that a supervisor does not restart one that loads its models or drains. Watchers see
// each change. Thread-safe.
class Health {
 public:
  // Live, not ready. Made right after the ports are open. `service` outlives this.
  explicit Health(grpc::HealthCheckServiceInterface& service);

  void SetReady(bool ready);
  // For good: nothing is SERVING any more.
  void SetDead() { service_.Shutdown(); }

 private:
  grpc::HealthCheckServiceInterface& service_;
};

}  // namespace ess
