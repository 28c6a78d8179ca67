// Who calls, and whether they may.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/security/access_file.h"

namespace ess::rpc {

// Who calls. Where the server knows no callers, everybody is nobody in particular, and may all.
struct Identity {
  std::string subject;  // "": nobody in particular.
  bool admin = false;   // May see and touch what belongs to others.
};

// What a caller shows.
struct Credentials {
  std::vector<std::string> authorization;  // The values of that metadata.
  // Names of a client certificate that TLS has verified: its subject alternative names, else its
  // common name.
  std::vector<std::string> certificate_names;
};

// Asked once by every call of every service, before anything of the call is looked at. Thread-safe.
//
// Without an access file everybody may everything, and a client certificate gives a caller its
// name. With one, a caller is who has the token of `authorization: Bearer TOKEN`; without that
// metadata, who has a client certificate of a name in the file.
class Access {
 public:
  // `file` outlives this. Null: there is none.
  explicit Access(const security::AccessFile* file) : file_(file) {}

  // `method` is the method's name, without its service.
  // Errors, which are the same whatever the call asks for:
  //   kUnauthenticated   the caller shows nothing, or nothing that is known here.
  //   kPermissionDenied  the caller's role is too weak.
  //   kInternal          the method has no row in the table of roles.
  absl::StatusOr<Identity> Check(const grpc::CallbackServerContext& call,
                                 std::string_view method) const;

  // The same, of what the call shows.
  absl::StatusOr<Identity> Check(const Credentials& credentials, std::string_view method) const;

 private:
  const security::AccessFile* file_;
};

}  // namespace ess::rpc
