#include "server/base/fault_point.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/log.h"

namespace ess {
namespace {

struct Fault {
  absl::Duration delay;
  std::string hold;  // A file, or "".
  int passes = 0;    // Times that the point is passed before it holds.
  size_t leaked_bytes = 0;
};

Fault ParseFault(const std::string& action) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(action, absl::MaxSplits(':', 1));
  Fault fault;
  if (parts.first == "delay") {
    ESS_CHECK(absl::ParseDuration(parts.second, &fault.delay));
  } else if (parts.first == "hold") {
    const std::pair<std::string, std::string> hold =
        absl::StrSplit(parts.second, absl::MaxSplits('@', 1));
    fault.hold = hold.first;
    ESS_CHECK(hold.second.empty() || absl::SimpleAtoi(hold.second, &fault.passes));
  } else {
    ESS_CHECK(parts.first == "leak");
    absl::string_view size = parts.second;
    ESS_CHECK(absl::ConsumeSuffix(&size, "KiB") && absl::SimpleAtoi(size, &fault.leaked_bytes));
    fault.leaked_bytes <<= 10;
  }
  return fault;
}

std::map<std::string, Fault> ReadFaults() {
  std::map<std::string, Fault> faults;
  const char* text = std::getenv("ESS_FAULTS");
  if (text == nullptr) return faults;
  for (const absl::string_view entry : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    faults[parts.first] = ParseFault(parts.second);
  }
  return faults;
}

int OpenTrace() {
  const char* path = std::getenv("ESS_FAULT_TRACE");
  if (path == nullptr) return -1;
  const int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  ESS_CHECK(file >= 0);
  return file;
}

}  // namespace

void ReachFaultPoint(const char* name) {
  static const auto faults = ReadFaults();
  static const int trace = OpenTrace();
  if (trace >= 0) {
    const std::string line = std::string(name) + "\n";
    ESS_CHECK(write(trace, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  }
  const auto found = faults.find(name);
  if (found == faults.end()) return;
  const Fault& fault = found->second;
  static std::atomic<int> reached{0};
  absl::SleepFor(fault.delay);
  if (fault.passes > 0 && reached++ < fault.passes) return;
  while (!fault.hold.empty() && access(fault.hold.c_str(), F_OK) == 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  if (fault.leaked_bytes > 0) {
    // Volatile: a compiler may leave out memory that nobody reads.
    void* volatile leaked = std::malloc(fault.leaked_bytes);
    std::memset(leaked, 1, fault.leaked_bytes);
  }
}

}  // namespace ess
