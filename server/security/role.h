// What a caller may do.
#pragma once

#include <optional>
#include <string_view>

namespace ess::security {

// Each may what those before it may. docs/security.md says what that is.
enum class Role {
  kViewer,  // Look: models, server, statistics.
  kUser,    // Compute, and have jobs.
  kAdmin,   // Load and unload models; everybody's jobs.
};

inline constexpr std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kUser:
      return "user";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

inline constexpr std::optional<Role> ParseRole(std::string_view name) {
  for (const Role role : {Role::kViewer, Role::kUser, Role::kAdmin}) {
    if (name == RoleName(role)) return role;
  }
  return std::nullopt;
}

}  // namespace ess::security
