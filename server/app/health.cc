#include "server/app/health.h"

namespace ess {

Health::Health(grpc::HealthCheckServiceInterface& service) : service_(service) {
  SetReady(false);
  service_.SetServingStatus("liveness", true);
}

void Health::SetReady(bool ready) {
  service_.SetServingStatus("", ready);
  service_.SetServingStatus("ess.v1.EssProfiler", ready);
}

}  // namespace ess
