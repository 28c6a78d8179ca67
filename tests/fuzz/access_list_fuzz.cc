// The access file: who may call.
#include "server/security/access_list.h"

#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {

std::vector<std::string> Seeds() {
  const std::string zeros(64, '0');
  return {
      "",
      "# A comment.\n\n  \t\nalice user sha256:" + zeros + "\n",
      "alice user sha256:" + std::string(64, 'f') + "\r\nalice user certificate\r\n",
      "spiffe://team/ci viewer certificate\nroot admin certificate\n#",
      "a viewer sha256:" + zeros + "\na viewer sha256:" + zeros + "\n",
      "a viewer certificate\na admin certificate\n",
      "a b c d\n",
      "a root certificate\n",
      "a user sha256:" + std::string(63, '0') + "\n",
  };
}

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ess::security::AccessList;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<AccessList> list = AccessList::Parse(text);
  ess::fuzz::CheckAnswer(list.status(), {absl::StatusCode::kInvalidArgument});
  if (!list.ok()) return 0;
  // Nobody gets in with what stands in the file, or with nothing.
  if (list->FindToken(text).has_value() || list->FindToken("").has_value()) std::abort();
  if (list->FindCertificate("").has_value() || list->FindCertificate(text).has_value())
    std::abort();
  // Comments change nothing.
  const absl::StatusOr<AccessList> commented = AccessList::Parse("# x\n" + text + "\n# y");
  if (size + 8 <= AccessList::kMaxBytes && (!commented.ok() || commented->size() != list->size())) {
    std::abort();
  }
  return 0;
}
