// The models a server may load: names, folders, options. Nothing of them is in memory.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/residency/model_options.h"

namespace ess::residency {

// Names that requests may add. Each is known, with its metrics, until the server ends.
inline constexpr int kMaxAliases = 256;

// Thread-safe. Folders under the root are looked up when asked for, so a model that is copied
// there while the server runs is found.
class ModelCatalogue {
 public:
  // `root` may be empty: only configured models. Configured names win over folders.
  ModelCatalogue(std::filesystem::path root, std::vector<CatalogueEntry> configured);

  // Errors: kNotFound  no such model; the message has the names that exist.
  absl::StatusOr<CatalogueEntry> Find(const std::string& name) const;

  // All names, sorted.
  std::vector<std::string> Names() const;

  // Serves `entry` under its name from now on. An entry of this name and folder stays as it is.
  // Errors: kAlreadyExists      the name belongs to another folder.
  //         kInvalidArgument    not a name: letters, digits, '.', '_', '-', at most 128, no leading
  //                             '.'.
  //         kResourceExhausted  kMaxAliases were added.
  absl::Status Add(const CatalogueEntry& entry);

  // What a model that was added under this name is loaded with from now on. Names of folders and of
  // the configuration keep theirs.
  void RememberOptions(const std::string& name, const ModelOptions& options);

 private:
  std::optional<CatalogueEntry> FindFolder(const std::string& name) const;

  const std::filesystem::path root_;
  std::map<std::string, CatalogueEntry> configured_;  // By name, as the next.
  mutable absl::Mutex mutex_;
  std::map<std::string, CatalogueEntry> added_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ess::residency
