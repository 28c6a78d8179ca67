// HTTP GET /metrics.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace ess::telemetry {

class Metrics;

// Serves until destroyed. A scrape never touches a device or a model.
class ExpositionServer {
 public:
  // `address` is HOST:PORT; port 0 picks a free one.
  // Errors: kInvalidArgument  not HOST:PORT.
  //         kUnavailable      the port is in use or the address is not this machine's.
  static absl::StatusOr<std::unique_ptr<ExpositionServer>> Start(const std::string& address,
                                                                 const Metrics& metrics);
  ~ExpositionServer();

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  ExpositionServer();
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::shared_ptr<prometheus::Collectable> metrics_;
  std::shared_ptr<prometheus::Collectable> process_;
  std::string address_;
};

}  // namespace ess::telemetry
