// Who calls, for fairness between callers.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

namespace ess::rpc {

// Metadata by which a caller without a name of its own, such as one of many behind a proxy, says
// who it is.
inline constexpr char kClientIdMetadata[] = "ess-client-id";

// `subject`, the authenticated one; else, when it is "", the metadata ess-client-id, cut to 64
// bytes; else the peer's address without its port.
std::string CallerOf(const grpc::CallbackServerContext& call, const std::string& subject);

// "ipv4:10.0.0.1:4711" => "ipv4:10.0.0.1". Public for its test.
std::string PeerWithoutPort(std::string_view peer);

}  // namespace ess::rpc
