#include "server/jobs/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "absl/strings/cord.h"
#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

constexpr int64_t kBufferBytes = 1 << 20;
constexpr char kDiskFullPayload[] = "ess.jobs/disk_full";

absl::Status FileError(int error, const std::string& name, const char* what) {
  if (error == ENOSPC || error == EDQUOT) {
    return DiskFullError(fmt::format("the disk of state_dir is full: cannot {} '{}'", what, name));
  }
  const std::string text = fmt::format("cannot {} '{}': {}", what, name, std::strerror(error));
  return error == ENOENT ? absl::DataLossError(text) : absl::UnavailableError(text);
}

}  // namespace

absl::Status DiskFullError(const std::string& message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kDiskFullPayload, absl::Cord());
  return status;
}

bool IsDiskFull(const absl::Status& status) {
  return status.GetPayload(kDiskFullPayload).has_value();
}

absl::StatusOr<PosixFile> PosixFile::Open(const std::filesystem::path& path, int flags) {
  const int descriptor = open(path.c_str(), flags | O_CLOEXEC, 0600);
  const std::string name = path.filename().string();
  if (descriptor < 0) return FileError(errno, name, "open");
  return PosixFile(descriptor, name);
}

absl::StatusOr<PosixFile> PosixFile::Create(const std::filesystem::path& path) {
  return Open(path, O_RDWR | O_CREAT | O_TRUNC);
}

absl::StatusOr<PosixFile> PosixFile::OpenForUpdate(const std::filesystem::path& path) {
  return Open(path, O_RDWR);
}

absl::StatusOr<PosixFile> PosixFile::OpenForReading(const std::filesystem::path& path) {
  return Open(path, O_RDONLY);
}

PosixFile::~PosixFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status PosixFile::WriteAt(int64_t offset, const void* data, int64_t size) const {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = pwrite(descriptor_, bytes, static_cast<size_t>(size), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(errno, name_, "write");
    bytes += written;
    offset += written;
    size -= written;
  }
  return absl::OkStatus();
}

absl::Status PosixFile::ReadAt(int64_t offset, void* data, int64_t size) const {
  char* bytes = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t read = pread(descriptor_, bytes, static_cast<size_t>(size), offset);
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) return FileError(errno, name_, "read");
    if (read == 0) {
      return absl::DataLossError(fmt::format("'{}' ends {} bytes before its end", name_, size));
    }
    bytes += read;
    offset += read;
    size -= read;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PosixFile::Size() const {
  struct stat found {};
  if (fstat(descriptor_, &found) != 0) return FileError(errno, name_, "look at");
  return int64_t{found.st_size};
}

absl::Status PosixFile::Truncate(int64_t size) const {
  if (ftruncate(descriptor_, size) != 0) return FileError(errno, name_, "cut");
  return absl::OkStatus();
}

absl::Status PosixFile::Allocate(int64_t size) const {
  const int error = posix_fallocate(descriptor_, 0, size);
  return error == 0 ? absl::OkStatus() : FileError(error, name_, "make room for");
}

absl::Status PosixFile::Sync() const {
  if (fdatasync(descriptor_) != 0) return FileError(errno, name_, "sync");
  return absl::OkStatus();
}

absl::Status FileAppender::Append(const void* data, int64_t size) {
  buffer_.append(static_cast<const char*>(data), static_cast<size_t>(size));
  return std::ssize(buffer_) >= kBufferBytes ? Flush() : absl::OkStatus();
}

absl::Status FileAppender::Flush() {
  ESS_RETURN_IF_ERROR(file_.WriteAt(offset_, buffer_.data(), std::ssize(buffer_)));
  offset_ += std::ssize(buffer_);
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::string name = folder.filename().string();
  if (descriptor < 0) return FileError(errno, name, "open");
  const int result = fsync(descriptor);
  const int error = errno;
  close(descriptor);
  return result == 0 ? absl::OkStatus() : FileError(error, name, "sync");
}

absl::Status MakeFolder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return absl::OkStatus();
  const std::string text = fmt::format("state_dir: cannot make a folder: {}", error.message());
  return error == std::errc::no_space_on_device ? DiskFullError(text)
                                                : absl::UnavailableError(text);
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path part = path.string() + ".part";
  {
    ESS_ASSIGN_OR_RETURN(const PosixFile file, PosixFile::Create(part));
    ESS_RETURN_IF_ERROR(file.WriteAt(0, text.data(), std::ssize(text)));
    ESS_RETURN_IF_ERROR(file.Sync());
  }
  if (rename(part.c_str(), path.c_str()) != 0) {
    return FileError(errno, path.filename().string(), "name");
  }
  return SyncFolder(path.parent_path());
}

absl::StatusOr<int64_t> FreeDiskBytes(const std::filesystem::path& folder) {
  struct statvfs disk {};
  if (statvfs(folder.c_str(), &disk) != 0) {
    return FileError(errno, folder.filename().string(), "look at the disk of");
  }
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
}

}  // namespace ess::jobs
