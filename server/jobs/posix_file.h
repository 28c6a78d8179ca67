// Files that are written at offsets and made durable, with Status.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ess::jobs {

// kResourceExhausted, and known for what it is: trying again does not help.
absl::Status DiskFullError(const std::string& message);
bool IsDiskFull(const absl::Status& status);

// An open file. Thread-compatible. Move-only.
// Errors of all: kResourceExhausted  the disk is full.
//                kDataLoss           the file is missing or too short.
//                kUnavailable        any other: says why. None names a folder.
class PosixFile {
 public:
  // Makes the file, or empties it.
  static absl::StatusOr<PosixFile> Create(const std::filesystem::path& path);
  static absl::StatusOr<PosixFile> OpenForUpdate(const std::filesystem::path& path);
  static absl::StatusOr<PosixFile> OpenForReading(const std::filesystem::path& path);

  PosixFile(PosixFile&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), name_(std::move(other.name_)) {}
  PosixFile& operator=(PosixFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(name_, other.name_);
    return *this;
  }
  ~PosixFile();

  absl::Status WriteAt(int64_t offset, const void* data, int64_t size) const;
  // Exactly `size` bytes.
  absl::Status ReadAt(int64_t offset, void* data, int64_t size) const;
  absl::StatusOr<int64_t> Size() const;
  absl::Status Truncate(int64_t size) const;
  // Takes the disk space of the first `size` bytes: writes there cannot fail for lack of it.
  absl::Status Allocate(int64_t size) const;
  // Returns when what was written is on the disk.
  absl::Status Sync() const;

 private:
  PosixFile(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}
  static absl::StatusOr<PosixFile> Open(const std::filesystem::path& path, int flags);

  int descriptor_;
  std::string name_;
};

// Appends through a buffer. Not thread-safe.
class FileAppender {
 public:
  // `offset`: where the first byte goes.
  explicit FileAppender(const PosixFile& file, int64_t offset = 0) : file_(file), offset_(offset) {}

  absl::Status Append(const void* data, int64_t size);
  absl::Status Append(std::string_view data) {
    return Append(data.data(), static_cast<int64_t>(data.size()));
  }
  absl::Status Flush();
  // Bytes appended so far count.
  int64_t offset() const { return offset_ + static_cast<int64_t>(buffer_.size()); }

 private:
  const PosixFile& file_;
  int64_t offset_;
  std::string buffer_;
};

// Returns when the names of the folder's files are on the disk.
absl::Status SyncFolder(const std::filesystem::path& folder);

// Makes the folder and those above it, where they are not there.
absl::Status MakeFolder(const std::filesystem::path& folder);

// The whole file, durable, under its name or not at all.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text);

// Bytes that anybody may still use on the disk of `folder`.
absl::StatusOr<int64_t> FreeDiskBytes(const std::filesystem::path& folder);

}  // namespace ess::jobs
