// Opens a file that somebody else has named, below a folder and nowhere else.
#pragma once

#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace ess {

// An open file; closes it.
class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return descriptor_; }

 private:
  int descriptor_;  // -1: none.
};

// Opens the regular file `relative` below the folder `root` for reading.
//
// `root` is trusted, symbolic links included. `relative` is not: every folder on its way is opened
// from the one before, and no symbolic link is followed, also when somebody changes the folders
// meanwhile. A device or a pipe is refused, and not waited for.
//
// Errors, which name `relative` and never `root`:
//   kInvalidArgument     empty, over 1024 bytes, absolute, with a part that is empty, '.' or '..'
//                        or holds a NUL; a part that is a symbolic link; not a regular file.
//   kNotFound            there is no such file.
//   kFailedPrecondition  the folder or the file cannot be opened: says why.
absl::StatusOr<FileDescriptor> OpenUnder(const std::filesystem::path& root,
                                         std::string_view relative);

}  // namespace ess
