#include "server/jobs/jobs.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

constexpr JobState kStates[] = {JobState::kQueued, JobState::kRunning, JobState::kSucceeded,
                                JobState::kFailed, JobState::kCancelled};

bool HasEntries(const std::filesystem::path& folder) {
  std::error_code error;
  return std::filesystem::directory_iterator(folder, error) !=
         std::filesystem::directory_iterator();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Jobs>> Jobs::Open(const std::filesystem::path& state_dir,
                                                 const JobLimits& limits,
                                                 telemetry::Metrics& metrics) {
  std::error_code error;
  const auto size = std::filesystem::file_size(state_dir / JobStore::kFileName, error);
  if ((error || size == 0) && HasEntries(state_dir / "jobs")) {
    return absl::DataLossError(fmt::format(
        "state_dir: there are jobs in '{}' and no database '{}'. Nothing was changed. Put it back, "
        "or move the folder away to go on without these jobs",
        (state_dir / "jobs").string(), JobStore::kFileName));
  }
  ESS_ASSIGN_OR_RETURN(std::unique_ptr<JobStore> store, JobStore::Open(state_dir));
  std::unique_ptr<Jobs> jobs(new Jobs(state_dir, limits, metrics, std::move(store)));
  ESS_RETURN_IF_ERROR(jobs->Recover());
  Jobs* self = jobs.get();
  jobs->keeper_ = std::thread([self] { self->RunKeeper(); });
  return jobs;
}

Jobs::Jobs(std::filesystem::path state_dir, const JobLimits& limits, telemetry::Metrics& metrics,
           std::unique_ptr<JobStore> store)
    : folder_(state_dir / "jobs"),
      incoming_(state_dir / "incoming"),
      limits_(limits),
      metrics_(metrics),
      store_(std::move(store)) {}

Jobs::~Jobs() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (keeper_.joinable()) keeper_.join();
}

absl::StatusOr<Job> Jobs::Find(const std::string& id, const Viewer& viewer) {
  if (id.empty()) return absl::InvalidArgumentError("id: it is empty");
  ESS_ASSIGN_OR_RETURN(Job job, store_->Get(id));
  if (!viewer.admin && job.owner != viewer.owner) {
    return NoSuchJob(id);
  }
  return job;
}

void Jobs::Overlay(Job& job) {
  absl::MutexLock lock(&mutex_);
  if (!shown_ || shown_->id != job.id || job.state != JobState::kRunning) return;
  job.cells_done = std::max(job.cells_done, shown_->cells_done);
  job.prompts_done = std::max(job.prompts_done, shown_->prompts_done);
  job.run_seconds = std::max(job.run_seconds, shown_->run_seconds);
  job.seconds_left = shown_->seconds_left;
}

absl::StatusOr<Job> Jobs::Get(const std::string& id, const Viewer& viewer) {
  {
    absl::MutexLock lock(&mutex_);  // Without the database, for those who watch it.
    if (shown_ && shown_->id == id && (viewer.admin || viewer.owner == shown_->owner)) {
      return *shown_;
    }
  }
  ESS_ASSIGN_OR_RETURN(Job job, Find(id, viewer));
  Overlay(job);
  return job;
}

absl::StatusOr<std::vector<Job>> Jobs::List(const Viewer& viewer, std::optional<JobState> state,
                                            std::optional<int64_t> before, int64_t limit) {
  JobFilter filter{.owner = viewer.owner, .state = state, .before = before};
  if (viewer.admin) filter.owner.reset();
  ESS_ASSIGN_OR_RETURN(std::vector<Job> jobs, store_->List(filter, limit));
  for (Job& job : jobs) Overlay(job);
  return jobs;
}

bool Jobs::CancelIfCurrent(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  if (current_ != id) return false;
  current_token_->Cancel();
  shown_.reset();
  return true;
}

absl::StatusOr<Job> Jobs::Cancel(const std::string& id, const Viewer& viewer) {
  ESS_ASSIGN_OR_RETURN(Job job, Get(id, viewer));
  if (HasEnded(job.state)) return job;
  job.state = JobState::kCancelled;
  job.seconds_left.reset();
  job.finished_at = UnixSeconds();
  job.stored_bytes = 0;
  const absl::Status cancelled = store_->Update(job);
  if (absl::IsFailedPrecondition(cancelled)) return Get(id, viewer);  // It has just ended.
  ESS_RETURN_IF_ERROR(cancelled);
  if (!CancelIfCurrent(id)) RemoveFiles(id);
  ReportEnd(job);
  return job;
}

absl::Status Jobs::Delete(const std::string& id, const Viewer& viewer) {
  ESS_ASSIGN_OR_RETURN(Job job, Find(id, viewer));
  ESS_ASSIGN_OR_RETURN(const bool deleted, store_->Delete(id));
  if (!deleted) return NoSuchJob(id);
  if (!CancelIfCurrent(id)) RemoveFiles(id);
  if (!HasEnded(job.state)) {
    job.state = JobState::kCancelled;
    job.finished_at = UnixSeconds();
    ReportEnd(job);
  }
  feed_.OnStateChange(id);
  UpdateGauges();
  return absl::OkStatus();
}

absl::StatusOr<Jobs::OpenResult> Jobs::Open(const std::string& id, const Viewer& viewer) {
  ESS_ASSIGN_OR_RETURN(Job job, Find(id, viewer));
  if (job.state != JobState::kSucceeded) {
    return absl::FailedPreconditionError(fmt::format(
        "id: job {} is {}; a result is there once it has succeeded", id, JobStateName(job.state)));
  }
  absl::StatusOr<PosixFile> file = PosixFile::OpenForReading(FilesOf(id).result());
  if (!file.ok()) {
    return absl::DataLossError(fmt::format("id: the result of job {} cannot be opened", id));
  }
  return OpenResult{.job = std::move(job), .file = *std::move(file)};
}

void Jobs::Drain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  feed_.Close();
}

bool Jobs::draining() {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

void Jobs::SetWaker(std::function<void()> waker) {
  absl::MutexLock lock(&mutex_);
  waker_ = std::move(waker);
}

void Jobs::SetCurrent(const std::string& id, std::shared_ptr<CancellationToken> token) {
  absl::MutexLock lock(&mutex_);
  current_ = id;
  current_token_ = std::move(token);
}

void Jobs::ClearCurrent() {
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    id = std::exchange(current_, "");
    current_token_.reset();
    shown_.reset();
  }
  const absl::StatusOr<Job> job = store_->Get(id);
  if (absl::IsNotFound(job.status())) {
    RemoveFiles(id);
  } else if (job.ok() && HasEnded(job->state)) {
    CleanUp(*job);
  }
}

void Jobs::Hide() {
  absl::MutexLock lock(&mutex_);
  shown_.reset();
}

absl::Status Jobs::Save(const Job& job) {
  ESS_RETURN_IF_ERROR(store_->Update(job));
  Hide();
  feed_.OnStateChange(job.id);
  UpdateGauges();
  return absl::OkStatus();
}

absl::Status Jobs::SaveLayer(const Job& job, const FinishedLayer& layer) {
  return store_->AddLayer(job, layer);
}

void Jobs::ShowProgress(const Job& job) {
  {
    absl::MutexLock lock(&mutex_);
    if (current_ != job.id || !current_token_->Check().ok()) return;  // Ended by others.
    shown_ = job;
  }
  feed_.OnProgress(job.id);
}

absl::Status Jobs::Fail(Job job, const absl::Status& error) {
  // First, so that a full disk has room for the database.
  RemoveFiles(job.id);
  job.state = JobState::kFailed;
  job.error = error;
  job.finished_at = std::max(UnixSeconds(), job.started_at);
  job.stored_bytes = 0;
  ESS_RETURN_IF_ERROR(store_->Update(job));
  Hide();
  ReportEnd(job);
  return absl::OkStatus();
}

absl::Status Jobs::Succeed(Job job, const FinishedResult& result) {
  const JobFiles files = FilesOf(job.id);
  job.state = JobState::kSucceeded;
  job.finished_at = std::max(UnixSeconds(), job.started_at);
  job.cells_done = job.cells_total;
  job.prompts_done = job.prompts_total;
  job.result_bytes = result.bytes;
  job.result_sha256 = result.sha256;
  job.stored_bytes = result.bytes;
  ESS_RETURN_IF_ERROR(store_->Update(job));
  Hide();
  ESS_FAULT_POINT("job_ended");
  files.RemoveWork();
  ReportEnd(job);
  EnforceRetention(0);
  return absl::OkStatus();
}

void Jobs::ReportEnd(const Job& job) {
  metrics_.jobs_finished.Increment({JobStateName(job.state)});
  metrics_.job_duration.Observe({}, std::max(job.finished_at - job.submitted_at, 0.0));
  UpdateGauges();
  LogJob("ended", job);
  feed_.OnStateChange(job.id);
}

void Jobs::UpdateGauges() {
  const auto counts = store_->CountByState();
  const auto totals = store_->ResultTotals();
  if (!counts.ok() || !totals.ok()) return;
  for (const JobState state : kStates) {
    const auto found = counts->find(state);
    metrics_.jobs.Set({JobStateName(state)},
                      found == counts->end() ? 0 : static_cast<double>(found->second));
  }
  metrics_.result_store_files.Set({}, static_cast<double>(totals->files));
  metrics_.result_store_bytes.Set({}, static_cast<double>(totals->bytes));
}

}  // namespace ess::jobs
