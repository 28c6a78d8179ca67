// The access file of a running server: read at the start, and again whenever it changes.
#pragma once

#include <filesystem>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/security/access_list.h"
#include "server/security/file_watch.h"

namespace ess::security {

// Thread-safe.
class AccessFile {
 public:
  // Reads the file, and looks for changes every `interval`. A change that cannot be read, or is
  // wrong, is logged, and the list before it stays.
  // Errors: kInvalidArgument  it cannot be read, is wrong, has no callers, or may be written by
  // others than its
  //         owner: names the file and the line.
  static absl::StatusOr<std::unique_ptr<AccessFile>> Open(const std::filesystem::path& path,
                                                          absl::Duration interval);

  // The list now. A caller who holds it sees no later change.
  std::shared_ptr<const AccessList> list() const;

 private:
  AccessFile(std::filesystem::path path, std::shared_ptr<const AccessList> list)
      : path_(std::move(path)), list_(std::move(list)) {}
  static absl::StatusOr<std::shared_ptr<const AccessList>> Read(const std::filesystem::path& path);
  void Reload();

  const std::filesystem::path path_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const AccessList> list_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<FileWatch> watch_;  // The last member: it calls Reload.
};

}  // namespace ess::security
