// Files that may be replaced while the server runs.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ess::security {

// The contents of a configured file.
// Errors: kInvalidArgument  it cannot be read or has more than `max_bytes`: names it as `field`.
absl::StatusOr<std::string> ReadConfiguredFile(const std::string& field,
                                               const std::filesystem::path& path, size_t max_bytes);

// Looks at files once in an interval, on a thread of its own, and calls when one has changed: other
// contents, another file under the name, gone, or there again. Symbolic links are followed, so that
// a folder that is swapped as a whole counts too.
class FileWatch {
 public:
  // Changes are those since now. `changed` is called on the thread, one call at a time.
  FileWatch(std::vector<std::filesystem::path> files, absl::Duration interval,
            std::function<void()> changed);
  // Waits for a call that runs.
  ~FileWatch();

 private:
  void Watch();
  // What stat says of the files.
  std::string Stamp() const;

  const std::vector<std::filesystem::path> files_;
  const absl::Duration interval_;
  const std::function<void()> changed_;
  std::string stamp_;  // The thread's.
  absl::Mutex mutex_;
  bool end_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ess::security
