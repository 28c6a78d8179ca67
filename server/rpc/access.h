// Who calls, and whether they may.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ess::rpc {

// Who calls. Where the server knows no callers, everybody is nobody in particular, and may all.
struct Identity {
  std::string subject;  // "": nobody in particular.
  bool admin = false;   // May see and touch what belongs to others.
};

// Asked once by every call of every service, before anything of the call is looked at. Thread-safe.
class Access {
 public:
  // `method` is the method's name, without its service.
  absl::StatusOr<Identity> Check(const grpc::CallbackServerContext& call,
                                 std::string_view method) const;
};

}  // namespace ess::rpc
