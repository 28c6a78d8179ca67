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

  // Reports NOT_SERVING, refuses new profiles, and waits for the running ones at most for `limit`.
  // Returns whether all have ended. May be called again with less patience.
  bool Drain(absl::Duration limit);

  // Ends all calls; those still running are cancelled.
  void Shutdown();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace ess
