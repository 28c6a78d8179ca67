// What a server does for its jobs unasked: taking up what an earlier process left, and retention.
#include <algorithm>
#include <chrono>
#include <set>
#include <system_error>
#include <utility>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/structured_log.h"
#include "server/jobs/jobs.h"

namespace ess::jobs {
namespace {

constexpr double kShortestSweepSeconds = 0.2;
constexpr double kLongestSweepSeconds = 60;

}  // namespace

absl::Status Jobs::Recover() {
  std::error_code error;
  std::filesystem::remove_all(incoming_, error);
  ESS_RETURN_IF_ERROR(MakeFolder(folder_));
  ESS_RETURN_IF_ERROR(MakeFolder(incoming_));
  ESS_RETURN_IF_ERROR(SyncFolder(folder_.parent_path()));
  ESS_ASSIGN_OR_RETURN(std::vector<Job> unfinished, store_->Unfinished());
  for (Job& job : unfinished) {
    if (job.started_at == 0) continue;
    ++job.restarts;
    // A process that ends by itself queues its job before.
    if (job.state == JobState::kRunning) ++job.failed_starts;
    job.state = JobState::kQueued;
    ESS_RETURN_IF_ERROR(store_->Update(job));
    LogJob("found again", job);
  }
  RemoveStrayFolders();
  UpdateGauges();
  return absl::OkStatus();
}

void Jobs::RemoveStrayFolders() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    const std::string id = entry.path().filename().string();
    const absl::StatusOr<Job> job = store_->Get(id);
    if (absl::IsNotFound(job.status())) {
      RemoveFiles(id);
    } else if (job.ok() && HasEnded(job->state)) {
      CleanUp(*job);
    }
  }
}

void Jobs::CleanUp(const Job& job) {
  if (job.state == JobState::kSucceeded) {
    FilesOf(job.id).RemoveWork();
  } else {
    RemoveFiles(job.id);
  }
}

void Jobs::RemoveFiles(const std::string& id) {
  std::error_code error;
  if (!id.empty()) std::filesystem::remove_all(folder_ / id, error);
}

void Jobs::RunKeeper() {
  const absl::Duration interval = absl::Seconds(
      std::clamp(limits_.retention_seconds / 20, kShortestSweepSeconds, kLongestSweepSeconds));
  auto last = std::chrono::steady_clock::now();
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval)) return;
    }
    const auto now = std::chrono::steady_clock::now();
    EnforceRetention(std::chrono::duration<double>(now - last).count());
    last = now;
  }
}

// Age is time that the server runs, by a clock that never jumps.
void Jobs::EnforceRetention(double seconds) {
  absl::StatusOr<std::vector<std::string>> aged = store_->Age(seconds, limits_.retention_seconds);
  const absl::StatusOr<std::vector<Job>> ended = store_->Ended();
  if (!aged.ok() || !ended.ok()) {
    ESS_LOG(warn, "jobs: retention: {}",
            std::string((aged.ok() ? ended.status() : aged.status()).message()));
    return;
  }
  std::set<std::string> expired(aged->begin(), aged->end());
  int64_t kept = 0;
  for (const Job& job : *ended) kept += expired.contains(job.id) ? 0 : job.stored_bytes;
  for (const Job& job : *ended) {  // The oldest first.
    if (kept <= limits_.retention_bytes) break;
    if (job.stored_bytes == 0 || !expired.insert(job.id).second) continue;
    kept -= job.stored_bytes;
  }
  for (const std::string& id : expired) {
    const absl::StatusOr<bool> deleted = store_->Delete(id);
    if (!deleted.ok()) continue;
    RemoveFiles(id);
    LogEvent("job", {{"job", id}, {"event", "removed"}});
  }
  if (!expired.empty()) UpdateGauges();
}

}  // namespace ess::jobs
