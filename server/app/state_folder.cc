#include "server/app/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "fmt/format.h"

namespace ess {
namespace {

constexpr char kLockFile[] = "lock";

absl::Status Error(const std::filesystem::path& path, const char* what, const std::string& why) {
  return absl::InvalidArgumentError(
      fmt::format("state_dir: cannot {} '{}': {}", what, path.string(), why));
}

}  // namespace

absl::StatusOr<StateFolder> StateFolder::Open(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Error(path, "make", error.message());
  std::filesystem::directory_iterator(path, error);
  if (error) return Error(path, "read", error.message());
  const int lock = open((path / kLockFile).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return Error(path, "write", std::strerror(errno));
  StateFolder folder(lock);
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Error(path, "lock", std::strerror(errno));
    return absl::FailedPreconditionError(
        fmt::format("state_dir: another ess_server uses '{}'", path.string()));
  }
  return folder;
}

StateFolder::StateFolder(StateFolder&& other) noexcept : lock_(std::exchange(other.lock_, -1)) {}

StateFolder::~StateFolder() {
  if (lock_ >= 0) close(lock_);
}

}  // namespace ess
