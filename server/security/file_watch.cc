#include "server/security/file_watch.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "fmt/format.h"

namespace ess::security {

absl::StatusOr<std::string> ReadConfiguredFile(const std::string& field,
                                               const std::filesystem::path& path,
                                               size_t max_bytes) {
  struct stat info;
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open() || stat(path.c_str(), &info) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: cannot read '{}': {}", field, path.string(), std::strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{}: '{}' is not a file", field, path.string()));
  }
  std::string text(max_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad()) {
    return absl::InvalidArgumentError(fmt::format("{}: cannot read '{}'", field, path.string()));
  }
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: '{}' has more than {} bytes, the limit", field, path.string(), max_bytes));
  }
  return text;
}

FileWatch::FileWatch(std::vector<std::filesystem::path> files, absl::Duration interval,
                     std::function<void()> changed)
    : files_(std::move(files)),
      interval_(interval),
      changed_(std::move(changed)),
      stamp_(Stamp()),
      thread_([this] { Watch(); }) {}

FileWatch::~FileWatch() {
  {
    absl::MutexLock lock(&mutex_);
    end_ = true;
  }
  thread_.join();
}

void FileWatch::Watch() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&end_), interval_)) return;
    }
    // Before the files are read: what changes while they are is seen the next time.
    if (std::string stamp = Stamp(); stamp != stamp_) {
      stamp_ = std::move(stamp);
      changed_();
    }
  }
}

std::string FileWatch::Stamp() const {
  std::string stamp;
  for (const std::filesystem::path& file : files_) {
    struct stat info;
    if (stat(file.c_str(), &info) != 0) {
      stamp += "none\n";
      continue;
    }
    stamp += fmt::format("{} {} {} {}.{:09} {}.{:09}\n", info.st_dev, info.st_ino, info.st_size,
                         info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec,
                         info.st_ctim.tv_nsec);
  }
  return stamp;
}

}  // namespace ess::security
