// Who may call: the text of an access file.
//
//   # NAME ROLE PROOF, one a line.
//   alice  user   sha256:5e88...     the SHA-256 of a bearer token
//   ci     viewer certificate        a TLS client certificate with this name
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/security/role.h"
#include "server/security/token.h"

namespace ess::security {

struct Caller {
  std::string name;
  Role role = Role::kViewer;
};

// Immutable.
class AccessList {
 public:
  // Limits of the text: bytes, and lines with callers.
  static constexpr size_t kMaxBytes = 1 << 20;
  static constexpr size_t kMaxCallers = 4096;

  // A name is 1 to 128 visible ASCII characters and not '#' at its start. It may have several
  // lines, for a token that replaces another, all with one role. A token has one line. Errors:
  // kInvalidArgument  names the line, never its hash.
  static absl::StatusOr<AccessList> Parse(std::string_view text);

  // The caller who has this token. The time does not depend on how much of it is right.
  std::optional<Caller> FindToken(std::string_view token) const;

  // The caller whose certificates may have this name.
  std::optional<Caller> FindCertificate(std::string_view name) const;

  size_t size() const { return tokens_.size() + certificates_.size(); }

 private:
  struct TokenLine {
    TokenDigest digest;
    Caller caller;
  };

  absl::Status AddLine(std::string_view line);

  std::vector<TokenLine> tokens_;
  std::map<std::string, Caller, std::less<>> certificates_;
  std::map<std::string, Role, std::less<>> roles_;  // Of the names.
};

// The line of an access file for a caller with this token.
std::string AccessLine(const Caller& caller, std::string_view token);

// Whether `name` may stand in an access file.
bool IsCallerName(std::string_view name);

}  // namespace ess::security
