// What a caller's metadata says to find a call again in the logs of others.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

namespace ess::rpc {

// Trailing metadata of every call: the id of its log line.
inline constexpr char kRequestIdMetadata[] = "ess-request-id";

struct TraceContext {
  std::string traceparent;        // W3C Trace Context; "": none, or not a valid one.
  std::string client_request_id;  // x-request-id; "": none, or not 1 to 128 visible characters.
};

TraceContext TraceContextOf(const grpc::CallbackServerContext& call);

// version-traceid-parentid-flags in lower-case hexadecimal, ids not zero. Public for its test.
bool IsTraceparent(std::string_view text);

}  // namespace ess::rpc
