#include "server/app/health.h"

namespace ess {

Health::Health(grpc::HealthCheckServiceInterface& service, std::atomic<bool>& ready)
    : service_(service), ready_(ready) {
  SetReady(false);
  service_.SetServingStatus("liveness", true);
}

void Health::SetReady(bool ready) {
  ready_ = ready;
  for (const char* name : {"", "ess.v1.EssProfiler", "inference.GRPCInferenceService"}) {
    service_.SetServingStatus(name, ready);
  }
}

void Health::SetDead() {
  ready_ = false;
  service_.Shutdown();
}

}  // namespace ess
