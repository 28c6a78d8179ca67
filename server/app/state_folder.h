// The folder in which a server keeps what outlives it (state_dir).
#pragma once

#include <filesystem>

#include "absl/status/statusor.h"

namespace ess {

// Holds the folder for this process. Whatever an earlier process left there, after a crash too, is
// no obstacle: the lock ends with its process.
class StateFolder {
 public:
  // Makes the folder when it is not there, checks that files can be made in it, and locks it.
  // Errors: kInvalidArgument     it cannot be made, read or written: says why.
  //         kFailedPrecondition  another process holds it.
  static absl::StatusOr<StateFolder> Open(const std::filesystem::path& path);

  StateFolder(StateFolder&& other) noexcept;
  StateFolder& operator=(StateFolder&&) = delete;
  ~StateFolder();

 private:
  explicit StateFolder(int lock) : lock_(lock) {}
  int lock_;  // Descriptor of the locked file; -1 once moved from.
};

}  // namespace ess
