#include "server/rpc/access.h"

#include <grpcpp/security/auth_context.h>

#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/rpc/method_roles.h"

namespace ess::rpc {
namespace {

using security::AccessList;
using security::Caller;

constexpr char kAuthorization[] = "authorization";
constexpr std::string_view kScheme = "Bearer ";
constexpr size_t kMaxTokenBytes = 512;

Credentials CredentialsOf(const grpc::CallbackServerContext& call) {
  Credentials credentials;
  const auto [begin, end] = call.client_metadata().equal_range(kAuthorization);
  for (auto entry = begin; entry != end; ++entry) {
    credentials.authorization.emplace_back(entry->second.data(), entry->second.size());
  }
  const std::shared_ptr<const grpc::AuthContext> peer = call.auth_context();
  if (peer != nullptr && peer->IsPeerAuthenticated()) {
    for (const grpc::string_ref& name : peer->GetPeerIdentity()) {
      credentials.certificate_names.emplace_back(name.data(), name.size());
    }
  }
  return credentials;
}

absl::StatusOr<Caller> FindByToken(const AccessList& list,
                                   const std::vector<std::string>& authorization) {
  if (authorization.size() > 1) {
    return absl::UnauthenticatedError("authorization: the call has it more than once");
  }
  const std::string_view value = authorization[0];
  const std::string_view scheme = value.substr(0, kScheme.size());
  if (!absl::EqualsIgnoreCase(std::string(scheme), std::string(kScheme)) ||
      value.size() - kScheme.size() > kMaxTokenBytes) {
    return absl::UnauthenticatedError("authorization: it must be 'Bearer TOKEN'");
  }
  if (std::optional<Caller> caller = list.FindToken(value.substr(kScheme.size()))) return *caller;
  return absl::UnauthenticatedError("authorization: this token is not known here");
}

absl::StatusOr<Caller> FindByCertificate(const AccessList& list,
                                         const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (std::optional<Caller> caller = list.FindCertificate(name)) return *caller;
  }
  return absl::UnauthenticatedError(
      names.empty()
          ? "authorization: this server needs a token, as metadata 'authorization: Bearer TOKEN'"
          : "authorization: there is no token, and the client certificate is not known here");
}

}  // namespace

absl::StatusOr<Identity> Access::Check(const grpc::CallbackServerContext& call,
                                       std::string_view method) const {
  return Check(CredentialsOf(call), method);
}

absl::StatusOr<Identity> Access::Check(const Credentials& credentials,
                                       std::string_view method) const {
  const MethodRole* const row = FindMethodRole(method);
  if (row == nullptr) {
    return absl::InternalError(fmt::format("{}: the method has no role", std::string(method)));
  }
  if (file_ == nullptr) {
    const std::vector<std::string>& names = credentials.certificate_names;
    return Identity{.subject = names.empty() ? "" : names.front(), .admin = true};
  }
  const std::shared_ptr<const AccessList> list = file_->list();
  ESS_ASSIGN_OR_RETURN(const Caller caller,
                       credentials.authorization.empty()
                           ? FindByCertificate(*list, credentials.certificate_names)
                           : FindByToken(*list, credentials.authorization));
  if (caller.role < *row->least) {
    return absl::PermissionDeniedError(fmt::format(
        "{} needs the role {}; '{}' is {}", std::string(method), std::string(RoleName(*row->least)),
        caller.name, std::string(RoleName(caller.role))));
  }
  return Identity{.subject = caller.name, .admin = caller.role == security::Role::kAdmin};
}

}  // namespace ess::rpc
