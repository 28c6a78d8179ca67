#include "server/base/open_under.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess {
namespace {

constexpr size_t kMaxNameBytes = 1024;

absl::Status Refuse(std::string_view relative, std::string_view why) {
  return absl::InvalidArgumentError(
      fmt::format("'{}' {}", CutText(std::string(relative)), std::string(why)));
}

std::vector<std::string> Split(std::string_view relative) {
  return absl::StrSplit(std::string(relative), '/');
}

absl::Status CheckName(std::string_view relative) {
  if (relative.empty()) return absl::InvalidArgumentError("the name of the file is empty");
  if (relative.size() > kMaxNameBytes) {
    return Refuse(relative,
                  fmt::format("has {} bytes; the limit is {}", relative.size(), kMaxNameBytes));
  }
  if (relative.find('\0') != std::string_view::npos) return Refuse(relative, "holds a NUL");
  if (relative.front() == '/') {
    return Refuse(relative, "is absolute; it must be relative to the configured folder");
  }
  for (const std::string& part : Split(relative)) {
    if (part.empty() || part == "." || part == "..") {
      return Refuse(relative, "has a part that is empty, '.' or '..'");
    }
  }
  return absl::OkStatus();
}

// `error` is the errno of an open that followed no link.
absl::Status OpenError(int error, std::string_view relative) {
  if (error == ENOENT || error == ENOTDIR) {
    return absl::NotFoundError(
        fmt::format("there is no file '{}'", CutText(std::string(relative))));
  }
  if (error == ELOOP) {
    return Refuse(relative, "is a symbolic link, or leads through one; links are not followed");
  }
  return absl::FailedPreconditionError(fmt::format(
      "'{}' cannot be opened: {}", CutText(std::string(relative)), std::strerror(error)));
}

// Opens `name` in `folder`. A folder that is a link is ELOOP, and not ENOTDIR.
int OpenAt(const FileDescriptor& folder, const std::string& name, int flags) {
  const int opened = openat(folder.get(), name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC);
  if (opened >= 0 || errno != ENOTDIR) return opened;
  struct stat info;
  const bool link =
      fstatat(folder.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
  errno = link ? ELOOP : ENOTDIR;
  return -1;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<FileDescriptor> OpenUnder(const std::filesystem::path& root,
                                         std::string_view relative) {
  ESS_RETURN_IF_ERROR(CheckName(relative));
  FileDescriptor at(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (at.get() < 0) {
    return absl::FailedPreconditionError(
        fmt::format("the configured folder cannot be opened: {}", std::strerror(errno)));
  }
  std::vector<std::string> parts = Split(relative);
  const std::string name = std::move(parts.back());
  parts.pop_back();
  for (const std::string& part : parts) {
    at = FileDescriptor(OpenAt(at, part, O_PATH | O_DIRECTORY));
    if (at.get() < 0) return OpenError(errno, relative);
  }
  // Opening a pipe or a device does not wait, and changes nothing.
  FileDescriptor file(OpenAt(at, name, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (file.get() < 0) return OpenError(errno, relative);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return OpenError(errno, relative);
  if (!S_ISREG(info.st_mode)) return Refuse(relative, "is not a regular file");
  return file;
}

}  // namespace ess
