#include "server/app/listener.h"

#include <grpc/grpc.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace ess {
namespace {

// How often files are looked at: ours, and gRPC at what we have checked.
constexpr absl::Duration kLookInterval = absl::Seconds(1);
constexpr unsigned int kGrpcLookSeconds = 1;

// A client that has vanished without a farewell is noticed after the sum of the first two, even
// when no call is open. Clients may ask as often as the third says.
constexpr absl::Duration kKeepaliveTime = absl::Seconds(30);
constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(10);
constexpr absl::Duration kShortestPingInterval = absl::Seconds(10);
// From the connection to the end of the TLS handshake and the HTTP/2 preface.
constexpr absl::Duration kHandshakeTimeout = absl::Seconds(20);

class WithoutReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins,
                  [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

}  // namespace

void RemoveReflection(grpc::ServerBuilder& builder) {
  builder.SetOption(std::make_unique<WithoutReflection>());
}

absl::StatusOr<std::unique_ptr<security::LiveCertificates>> OpenCertificates(
    const v1::ServerConfig& config) {
  if (config.tls_certificate().empty()) return nullptr;
  return security::LiveCertificates::Open({.certificate = config.tls_certificate(),
                                           .key = config.tls_key(),
                                           .client_ca = config.tls_client_ca()},
                                          kLookInterval);
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(
    const v1::ServerConfig& config, const security::LiveCertificates* certificates) {
  if (certificates == nullptr) return grpc::InsecureServerCredentials();
  namespace tls = grpc::experimental;
  const bool mutual = !config.tls_client_ca().empty();
  const std::string identity = certificates->identity_path();
  tls::TlsServerCredentialsOptions options(std::make_shared<tls::FileWatcherCertificateProvider>(
      identity, identity, mutual ? certificates->client_ca_path() : "", kGrpcLookSeconds));
  options.watch_identity_key_cert_pairs();
  if (mutual) {
    options.watch_root_certs();
    options.set_cert_request_type(config.tls_client_certificates() == "require"
                                      ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return tls::TlsServerCredentials(options);
}

void SetConnectionLimits(const v1::ServerConfig& config, grpc::ServerBuilder& builder) {
  const auto set = [&](const char* name, absl::Duration time) {
    const int64_t most = std::numeric_limits<int>::max();
    builder.AddChannelArgument(name,
                               static_cast<int>(std::min(absl::ToInt64Milliseconds(time), most)));
  };
  set(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTime);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeout);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kShortestPingInterval);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeout);
  set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, absl::Seconds(config.max_connection_idle_seconds()));
  if (config.max_connection_age_seconds() > 0) {
    set(GRPC_ARG_MAX_CONNECTION_AGE_MS, absl::Seconds(config.max_connection_age_seconds()));
  }
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams());
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(config.max_header_bytes()));
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes()));
  grpc::ResourceQuota quota("ess_server");
  quota.Resize(static_cast<size_t>(config.max_network_bytes()));
  builder.SetResourceQuota(quota);
}

}  // namespace ess
