#include "server/residency/model_catalogue.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/models/model_loader.h"

namespace ess::residency {
namespace {

constexpr size_t kMaxNameLength = 128;
constexpr size_t kMaxNamesInMessage = 20;

bool IsModelName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameLength && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

ModelCatalogue::ModelCatalogue(std::filesystem::path root, std::vector<CatalogueEntry> configured)
    : root_(std::move(root)) {
  for (CatalogueEntry& entry : configured) {
    const std::string name = entry.name;
    configured_.emplace(name, std::move(entry));
  }
}

absl::StatusOr<CatalogueEntry> ModelCatalogue::Find(const std::string& name) const {
  if (const auto found = configured_.find(name); found != configured_.end()) return found->second;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = added_.find(name); found != added_.end()) return found->second;
  }
  if (std::optional<CatalogueEntry> entry = FindFolder(name)) return *std::move(entry);
  const std::string shown = CutText(name, kMaxNameLength);
  std::vector<std::string> names = Names();
  const size_t total = names.size();
  if (total > kMaxNamesInMessage) names.resize(kMaxNamesInMessage);
  return absl::NotFoundError(
      total == 0
          ? fmt::format("model: there is no model '{}'; the server has none", shown)
          : fmt::format(
                "model: there is no model '{}'; there {} {}{}", shown, total == 1 ? "is" : "are",
                fmt::join(names, ", "),
                total > names.size() ? fmt::format(" and {} more", total - names.size()) : ""));
}

std::vector<std::string> ModelCatalogue::Names() const {
  std::set<std::string> names;
  for (const auto& [name, entry] : configured_) names.insert(name);
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, entry] : added_) names.insert(name);
  }
  std::error_code error;
  // Not a range-based loop, whose steps throw.
  for (std::filesystem::directory_iterator folder(root_, error), end; !error && folder != end;
       folder.increment(error)) {
    const std::string name = folder->path().filename().string();
    if (FindFolder(name)) names.insert(name);
  }
  return {names.begin(), names.end()};
}

absl::Status ModelCatalogue::Add(const CatalogueEntry& entry) {
  if (!IsModelName(entry.name)) {
    return absl::InvalidArgumentError(fmt::format(
        "options.alias: '{}' is not a model name; letters, digits, '.', '_' and '-', at "
        "most {} characters, not starting with '.'",
        entry.name, kMaxNameLength));
  }
  const absl::StatusOr<CatalogueEntry> found = Find(entry.name);
  absl::MutexLock lock(&mutex_);
  if (!found.ok() && !added_.contains(entry.name)) {
    if (added_.size() == kMaxAliases) {
      return absl::ResourceExhaustedError(fmt::format(
          "options.alias: the server has {} aliases already, which is the limit", kMaxAliases));
    }
    added_.emplace(entry.name, entry);
    return absl::OkStatus();
  }
  const CatalogueEntry& existing = found.ok() ? *found : added_.at(entry.name);
  if (existing.folder == entry.folder) return absl::OkStatus();
  return absl::AlreadyExistsError(
      fmt::format("options.alias: another model has the name '{}'", entry.name));
}

void ModelCatalogue::RememberOptions(const std::string& name, const ModelOptions& options) {
  absl::MutexLock lock(&mutex_);
  if (const auto found = added_.find(name); found != added_.end()) found->second.options = options;
}

std::optional<CatalogueEntry> ModelCatalogue::FindFolder(const std::string& name) const {
  if (root_.empty() || !IsModelName(name) || models::FindConfig(root_ / name).empty())
    return std::nullopt;
  return CatalogueEntry{.name = name, .folder = root_ / name, .options = {}};
}

}  // namespace ess::residency
