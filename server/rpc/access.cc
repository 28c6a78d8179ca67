#include "server/rpc/access.h"

namespace ess::rpc {

absl::StatusOr<Identity> Access::Check(const grpc::CallbackServerContext&, std::string_view) const {
  return Identity{.subject = "", .admin = true};
}

}  // namespace ess::rpc
