#include "server/base/available_memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace ess {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number behind `key` in a file of lines "KEY NUMBER ...".
std::optional<int64_t> NumberOf(const std::filesystem::path& path, std::string_view key) {
  std::ifstream file(path);
  std::string name;
  int64_t number = 0;
  while (file >> name >> number) {
    if (name == key) return number;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

// The number that is all of a file.
std::optional<int64_t> NumberIn(const std::filesystem::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // Absent, or "max".
}

// Of a control group and those above it.
int64_t AvailableInGroups() {
  std::ifstream memberships("/proc/self/cgroup");
  std::string group;
  for (std::string line; std::getline(memberships, line);) {
    if (line.starts_with("0::/")) group = line.substr(sizeof("0::/") - 1);
  }
  const std::filesystem::path root = "/sys/fs/cgroup";
  int64_t available = kUnlimited;
  for (std::filesystem::path folder = root / group;; folder = folder.parent_path()) {
    const std::optional<int64_t> limit = NumberIn(folder / "memory.max");
    const std::optional<int64_t> used = NumberIn(folder / "memory.current");
    if (limit && used) {
      // Files in the page cache count as used, and give way.
      const int64_t cached = NumberOf(folder / "memory.stat", "inactive_file").value_or(0);
      available = std::min(available, std::max<int64_t>(*limit - *used + cached, 0));
    }
    if (folder == root || !folder.has_relative_path()) return available;
  }
}

}  // namespace

int64_t AvailableMemoryBytes() {
  const std::optional<int64_t> kibibytes = NumberOf("/proc/meminfo", "MemAvailable:");
  return std::min(kibibytes ? *kibibytes << 10 : kUnlimited, AvailableInGroups());
}

}  // namespace ess
