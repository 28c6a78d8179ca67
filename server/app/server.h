// The process's long-lived objects: built bottom-up, drained top-down.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ess/v1/server.pb.h"

namespace ess {

class Server {
 public:
  // Binds both ports, builds everything and loads the preloads; a preload that fails is logged and
  // the server still starts.
  // Errors: kInvalidArgument, kFailedPrecondition  a configuration that cannot work.
  //         kUnavailable  a port in use.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const v1::ServerConfig& config);
  ~Server();

  // HOST:PORT that were bound.
  const std::string& grpc_address() const;
  const std::string& metrics_address() const;

  // The steps of an end, in this order. serve.h has the times.
  // Health says NOT_SERVING.
  void StopServing();
  // New profiles, loads and unloads are UNAVAILABLE from now on.
  void RefuseWork();
  // Waits for the calls that are open, at most for `limit`. Returns how many still are.
  size_t AwaitCalls(absl::Duration limit);
  // Tells all work to stop and its calls to end with UNAVAILABLE; gives them a second for it.
  void EndCalls();
  // Closes all connections and waits for the work to stop.
  void Shutdown();

  // After a device failure: health says NOT_SERVING under every name, and new work is refused.
  void ReportDeviceFailure();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace ess
