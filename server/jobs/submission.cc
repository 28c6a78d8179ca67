// Submissions: prompts on their way to the disk, and the job that they become.
#include <random>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/sha256.h"
#include "server/base/status_macros.h"
#include "server/jobs/jobs.h"

namespace ess::jobs {
namespace {

// Kept free for the database and what else the server writes.
constexpr int64_t kMinFreeBytes = 16 << 20;

std::string NewId() {
  std::random_device random;
  const uint64_t high = random();
  return fmt::format("{:016x}", high << 32 | random());
}

}  // namespace

Submission::~Submission() {
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

absl::StatusOr<Job> Submission::Commit() {
  ESS_RETURN_IF_ERROR(spool_->Finish());
  Job job{.id = id_,
          .owner = request_.owner,
          .idempotency_key = request_.idempotency_key,
          .content_digest = Sha256Hex(request_.content_digest + spool_->digest()),
          .specification = request_.specification,
          .model = request_.model,
          .priority = request_.priority,
          .prompts_total = spool_->prompts(),
          .submitted_at = UnixSeconds(),
          .stored_bytes = spool_->bytes()};
  return jobs_.Insert(std::move(job), folder_);
}

absl::StatusOr<std::unique_ptr<Submission>> Jobs::Begin(JobRequest request) {
  if (draining()) return absl::UnavailableError("the server is shutting down");
  ESS_ASSIGN_OR_RETURN(auto counts, store_->CountByState());
  const int64_t unfinished = counts[JobState::kQueued] + counts[JobState::kRunning];
  if (unfinished >= limits_.max_unfinished) {
    return absl::ResourceExhaustedError(
        fmt::format("jobs: {} have not ended; the limit is {} (max_queued_jobs); try again later",
                    unfinished, limits_.max_unfinished));
  }
  ESS_ASSIGN_OR_RETURN(const int64_t free, FreeDiskBytes(incoming_));
  if (free < kMinFreeBytes) {
    return absl::ResourceExhaustedError(
        fmt::format("jobs: the disk of state_dir has {} bytes free; at least {} are needed to take "
                    "a job",
                    free, kMinFreeBytes));
  }
  const std::string id = NewId();
  std::unique_ptr<Submission> submission(
      new Submission(*this, std::move(request), id, incoming_ / id));
  ESS_RETURN_IF_ERROR(MakeFolder(incoming_ / id));
  ESS_ASSIGN_OR_RETURN(
      PromptSpool spool,
      PromptSpool::Create(JobFiles{.folder = incoming_ / id}.prompts(), limits_.prompts));
  submission->spool_.emplace(std::move(spool));
  return submission;
}

absl::StatusOr<Job> Jobs::Insert(Job job, const std::filesystem::path& folder) {
  if (draining()) return absl::UnavailableError("the server is shutting down");
  ESS_FAULT_POINT("job_spooled");
  std::error_code error;
  std::filesystem::rename(folder, folder_ / job.id, error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("jobs: cannot keep the prompts: {}", error.message()));
  }
  absl::Status inserted = SyncFolder(folder_ / job.id);
  if (inserted.ok()) inserted = SyncFolder(folder_);
  ESS_FAULT_POINT("job_named");
  if (inserted.ok()) inserted = store_->Insert(job);
  if (!inserted.ok()) RemoveFiles(job.id);
  if (absl::IsAlreadyExists(inserted)) {
    ESS_ASSIGN_OR_RETURN(std::optional<Job> first,
                         store_->FindByKey(job.owner, job.idempotency_key));
    if (first && first->content_digest == job.content_digest) {
      Overlay(*first);
      return *std::move(first);
    }
    return absl::AlreadyExistsError(
        fmt::format("idempotency_key: '{}' is the key of job {}, which asks for something else",
                    job.idempotency_key, first ? first->id : ""));
  }
  ESS_RETURN_IF_ERROR(inserted);
  ESS_FAULT_POINT("job_inserted");
  UpdateGauges();
  LogJob("submitted", job);
  std::function<void()> waker;
  {
    absl::MutexLock lock(&mutex_);
    waker = waker_;
  }
  if (waker) waker();
  return job;
}

}  // namespace ess::jobs
