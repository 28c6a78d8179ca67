#include "server/security/access_file.h"

#include <sys/stat.h>

#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::security {
namespace {

constexpr char kField[] = "access_file";

}  // namespace

absl::StatusOr<std::unique_ptr<AccessFile>> AccessFile::Open(const std::filesystem::path& path,
                                                             absl::Duration interval) {
  auto file = std::unique_ptr<AccessFile>(new AccessFile(path, nullptr));
  AccessFile* const raw = file.get();
  // Watched first: a change between the two is seen.
  file->watch_ = std::make_unique<FileWatch>(std::vector<std::filesystem::path>{path}, interval,
                                             [raw] { raw->Reload(); });
  ESS_ASSIGN_OR_RETURN(std::shared_ptr<const AccessList> list, Read(path));
  absl::MutexLock lock(&file->mutex_);
  file->list_ = std::move(list);
  return file;
}

std::shared_ptr<const AccessList> AccessFile::list() const {
  absl::MutexLock lock(&mutex_);
  return list_;
}

absl::StatusOr<std::shared_ptr<const AccessList>> AccessFile::Read(
    const std::filesystem::path& path) {
  ESS_ASSIGN_OR_RETURN(const std::string text,
                       ReadConfiguredFile(kField, path, AccessList::kMaxBytes));
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: '{}' may be written by others than its owner, who could let themselves in; "
        "chmod 600 it",
        kField, path.string()));
  }
  absl::StatusOr<AccessList> list = AccessList::Parse(text);
  if (!list.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: '{}', {}", kField, path.string(), std::string(list.status().message())));
  }
  // A file that is just being written, most likely; nobody could call.
  if (list->size() == 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: '{}' has no callers", kField, path.string()));
  }
  return std::make_shared<const AccessList>(*std::move(list));
}

void AccessFile::Reload() {
  absl::StatusOr<std::shared_ptr<const AccessList>> list = Read(path_);
  if (!list.ok()) {
    ESS_LOG(error, "{}; what it said before stays in force", std::string(list.status().message()));
    return;
  }
  ESS_LOG(info, "{}: read again, {} callers", kField, (*list)->size());
  absl::MutexLock lock(&mutex_);
  list_ = *std::move(list);
}

}  // namespace ess::security
