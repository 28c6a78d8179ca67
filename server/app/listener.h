// The gRPC port: encryption, and the limits of its connections.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>

#include "absl/status/statusor.h"
#include "ess/v1/server.pb.h"
#include "server/security/live_certificates.h"

namespace ess {

// The certificates that the configuration names; null without TLS.
// Errors: kInvalidArgument  a file that cannot be read or used: names the field.
absl::StatusOr<std::unique_ptr<security::LiveCertificates>> OpenCertificates(
    const v1::ServerConfig& config);

// With `certificates` TLS 1.2 or 1.3, else none. `certificates` outlives the server. New
// connections see changed certificates within 3 seconds; those that are open keep theirs.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(
    const v1::ServerConfig& config, const security::LiveCertificates* certificates);

// Takes gRPC reflection out of the server, which the library puts into every one.
void RemoveReflection(grpc::ServerBuilder& builder);

// Sets what one caller, and all together, may take of connections, messages and memory; and how
// soon a client that has vanished is noticed.
void SetConnectionLimits(const v1::ServerConfig& config, grpc::ServerBuilder& builder);

}  // namespace ess
