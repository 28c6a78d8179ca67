#include "server/app/exposure.h"

#include <arpa/inet.h>

#include "absl/strings/ascii.h"
#include "fmt/format.h"

namespace ess {
namespace {

// Whether each caller is known, by a token or by a certificate.
bool KnowsCallers(const v1::ServerConfig& config) {
  return !config.access_file().empty() ||
         (!config.tls_client_ca().empty() && config.tls_client_certificates() == "require");
}

}  // namespace

bool IsLoopback(const std::string& address) {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (absl::AsciiStrToLower(host) == "localhost") return true;
  in_addr four;
  if (inet_pton(AF_INET, host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  in6_addr six;
  return inet_pton(AF_INET6, host.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

absl::Status CheckExposure(const v1::ServerConfig& config) {
  if (config.allow_insecure_network()) return absl::OkStatus();
  if (!IsLoopback(config.listen())) {
    const char* const address = config.listen().c_str();
    if (config.tls_certificate().empty()) {
      return absl::InvalidArgumentError(
          fmt::format("listen: others can reach {}, and without TLS (tls_certificate, tls_key) "
                      "they can read and "
                      "change everything on its way; if that is meant, say allow_insecure_network",
                      address));
    }
    if (!KnowsCallers(config)) {
      return absl::InvalidArgumentError(fmt::format(
          "listen: others can reach {}, and without an access_file, or certificates that are "
          "required of clients (tls_client_ca), anybody may do everything; if that is meant, say "
          "allow_insecure_network",
          address));
    }
  }
  if (!IsLoopback(config.metrics_listen()) && !config.allow_metrics_on_network()) {
    return absl::InvalidArgumentError(fmt::format(
        "metrics_listen: others can reach {}, and everybody may read the metrics there (names of "
        "models, numbers of calls; no prompts, no callers); if that is meant, say "
        "allow_metrics_on_network",
        config.metrics_listen()));
  }
  return absl::OkStatus();
}

bool ServesReflection(const v1::ServerConfig& config) {
  return IsLoopback(config.listen()) || config.allow_reflection_on_network();
}

}  // namespace ess
