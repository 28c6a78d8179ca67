// The only place where an absl::Status becomes a grpc::Status.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ess::rpc {

// Same code and message; a message over 4 KiB is cut, since it travels in an HTTP/2 header.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Tells a refused caller when to come back, in the trailing metadata, when `status` says so.
void AddRetryAfter(const absl::Status& status, grpc::CallbackServerContext& call);

}  // namespace ess::rpc
