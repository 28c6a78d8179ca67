#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {
namespace {

// Enough for every name and number that a message quotes.
constexpr size_t kMaxMessageBytes = 16 << 10;

}  // namespace

void CheckAnswer(const absl::Status& status, std::initializer_list<absl::StatusCode> allowed) {
  if (status.message().size() > kMaxMessageBytes) {
    std::fprintf(stderr, "a message of %zu bytes\n", status.message().size());
    std::abort();
  }
  if (status.ok() || std::find(allowed.begin(), allowed.end(), status.code()) != allowed.end()) {
    return;
  }
  std::fprintf(stderr, "unexpected: %s\n", status.ToString().c_str());
  std::abort();
}

}  // namespace ess::fuzz
