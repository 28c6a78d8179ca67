#include "server/security/access_list.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"

namespace ess::security {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr std::string_view kHashPrefix = "sha256:";
constexpr std::string_view kCertificate = "certificate";

absl::Status Wrong(std::string text) { return absl::InvalidArgumentError(std::move(text)); }

std::optional<TokenDigest> ParseHash(std::string_view proof) {
  if (!proof.starts_with(kHashPrefix)) return std::nullopt;
  const std::string hex(proof.substr(kHashPrefix.size()));
  TokenDigest digest;
  if (hex.size() != 2 * digest.size() ||
      !std::all_of(hex.begin(), hex.end(), [](unsigned char c) { return absl::ascii_isxdigit(c); }))
    return std::nullopt;
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

}  // namespace

bool IsCallerName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '#' &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return absl::ascii_isgraph(c); });
}

std::string AccessLine(const Caller& caller, std::string_view token) {
  const TokenDigest digest = DigestOf(token);
  const std::string bytes(digest.begin(), digest.end());
  return fmt::format("{} {} {}{}", caller.name, std::string(RoleName(caller.role)),
                     std::string(kHashPrefix), absl::BytesToHexString(bytes));
}

absl::StatusOr<AccessList> AccessList::Parse(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return Wrong(fmt::format("{} bytes; the limit is {}", text.size(), kMaxBytes));
  }
  AccessList list;
  int line_number = 0;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(std::string(text), '\n'))) {
    ++line_number;
    if (const absl::Status added = list.AddLine(line); !added.ok()) {
      return Wrong(fmt::format("line {}: {}", line_number, std::string(added.message())));
    }
  }
  return list;
}

absl::Status AccessList::AddLine(std::string_view line) {
  const std::vector<std::string> words =
      absl::StrSplit(std::string(line), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.empty() || words[0].front() == '#') return absl::OkStatus();
  if (size() == kMaxCallers) return Wrong(fmt::format("the limit is {} callers", kMaxCallers));
  if (words.size() != 3) {
    return Wrong(fmt::format("{} words; it must be NAME ROLE sha256:HEX or NAME ROLE certificate",
                             words.size()));
  }
  const std::string& name = words[0];
  if (!IsCallerName(name)) {
    return Wrong(
        fmt::format("the name must be at most {} visible ASCII characters", kMaxNameBytes));
  }
  const std::optional<Role> role = ParseRole(words[1]);
  if (!role) {
    // Not quoted: it may be a secret in the wrong place.
    return Wrong("the second word is none of viewer, user, admin");
  }
  if (const auto [found, is_new] = roles_.emplace(name, *role); !is_new && found->second != *role) {
    return Wrong(fmt::format("'{}' has the role {} in an earlier line", name,
                             std::string(RoleName(found->second))));
  }
  const Caller caller{.name = name, .role = *role};
  if (words[2] == kCertificate) {
    if (!certificates_.emplace(name, caller).second) {
      return Wrong(fmt::format("'{}' has a line with a certificate already", name));
    }
    return absl::OkStatus();
  }
  const std::optional<TokenDigest> digest = ParseHash(words[2]);
  if (!digest) {
    return Wrong("the third word is neither 'certificate' nor sha256: and 64 hexadecimal digits");
  }
  for (const TokenLine& token : tokens_) {
    if (token.digest == *digest) return Wrong("the token has an earlier line");
  }
  tokens_.push_back({.digest = *digest, .caller = caller});
  return absl::OkStatus();
}

std::optional<Caller> AccessList::FindToken(std::string_view token) const {
  const TokenDigest digest = DigestOf(token);
  const TokenLine* found = nullptr;
  for (const TokenLine& line : tokens_) {
    if (Equal(line.digest, digest)) found = &line;
  }
  if (found == nullptr) return std::nullopt;
  return found->caller;
}

std::optional<Caller> AccessList::FindCertificate(std::string_view name) const {
  const auto found = certificates_.find(name);
  if (found == certificates_.end()) return std::nullopt;
  return found->second;
}

}  // namespace ess::security
