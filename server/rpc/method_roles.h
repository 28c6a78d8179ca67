// Every method of every service, and the least role that may call it.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "server/security/role.h"

namespace ess::rpc {

struct MethodRole {
  std::string_view service;  // With its package.
  std::string_view method;
  // None: open to everybody who can connect. Such methods are gRPC's own, and do not ask Access.
  std::optional<security::Role> least;
};

// One row for each. docs/security.md shows it; tests/contract/test_access.py walks it.
std::span<const MethodRole> MethodRoles();

// The row of a method of ours. Names of methods are unique among those with a role. Null: none.
const MethodRole* FindMethodRole(std::string_view method);

}  // namespace ess::rpc
