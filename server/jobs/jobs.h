// All jobs of a server: what callers ask of them, and what the runner reports. Files and database
// lie under state_dir; docs/jobs.md has the life of a job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/base/cancellation.h"
#include "server/jobs/job.h"
#include "server/jobs/job_feed.h"
#include "server/jobs/job_files.h"
#include "server/jobs/job_store.h"
#include "server/jobs/prompt_spool.h"
#include "server/jobs/result_file.h"
#include "server/telemetry/metrics.h"

namespace ess::jobs {

struct JobLimits {
  PromptLimits prompts;
  int64_t max_unfinished = 1000;
  int64_t max_result_bytes = int64_t{64} << 30;
  // Of ended jobs: time that the server runs, and bytes of all of them together.
  double retention_seconds = 7 * 86400;
  int64_t retention_bytes = int64_t{64} << 30;
};

// Who asks.
struct Viewer {
  std::string owner;
  bool admin = false;  // Sees and touches the jobs of others.
};

// What is asked for, without the prompts.
struct JobRequest {
  std::string owner;
  std::string idempotency_key;
  std::string specification;   // Opaque.
  std::string content_digest;  // Of all that makes two requests the same, prompts excluded.
  std::string model;
  JobPriority priority = JobPriority::kNormal;
};

class Jobs;

// A job whose prompts are coming in. Leaves nothing behind unless Commit was OK. Not thread-safe;
// Jobs outlives it.
class Submission {
 public:
  ~Submission();
  // Errors: those of PromptSpool::Add.
  absl::Status Add(std::string_view json_lines) { return spool_->Add(json_lines); }
  // Returns the job, durable and queued; or the one that the owner has submitted with this key and
  // content before.
  // Errors: those of PromptSpool::Finish; kAlreadyExists  the key with other content.
  absl::StatusOr<Job> Commit();

 private:
  friend class Jobs;
  Submission(Jobs& jobs, JobRequest request, std::string id, std::filesystem::path folder)
      : jobs_(jobs), request_(std::move(request)), id_(std::move(id)), folder_(std::move(folder)) {}

  Jobs& jobs_;
  const JobRequest request_;
  const std::string id_;
  const std::filesystem::path folder_;
  std::optional<PromptSpool> spool_;
};

// Thread-safe.
class Jobs {
 public:
  // Opens the database under `state_dir` and takes up what an earlier process has left: running
  // jobs are queued again, halves of submissions and files without a job are removed. `metrics`
  // outlives this.
  // Errors: those of JobStore::Open; kDataLoss  there are job folders and no database.
  static absl::StatusOr<std::unique_ptr<Jobs>> Open(const std::filesystem::path& state_dir,
                                                    const JobLimits& limits,
                                                    telemetry::Metrics& metrics);
  ~Jobs();

  const JobLimits& limits() const { return limits_; }
  JobFeed& feed() { return feed_; }
  JobStore& store() { return *store_; }
  JobFiles FilesOf(const std::string& id) const { return {.folder = folder_ / id}; }

  // For callers. A job of somebody else is kNotFound.

  // Errors: kResourceExhausted  max_queued_jobs have not ended; the disk is nearly full.
  //         kUnavailable        the server drains.
  absl::StatusOr<std::unique_ptr<Submission>> Begin(JobRequest request);
  absl::StatusOr<Job> Get(const std::string& id, const Viewer& viewer);
  // Newest first; those before `before`, a sequence, where it is given.
  absl::StatusOr<std::vector<Job>> List(const Viewer& viewer, std::optional<JobState> state,
                                        std::optional<int64_t> before, int64_t limit);
  // A job that has ended stays as it is.
  absl::StatusOr<Job> Cancel(const std::string& id, const Viewer& viewer);
  // Cancels it first when it has not ended.
  absl::Status Delete(const std::string& id, const Viewer& viewer);
  struct OpenResult {
    Job job;
    PosixFile file;
  };
  // Errors: kFailedPrecondition  it has not succeeded; kDataLoss  its file is gone.
  absl::StatusOr<OpenResult> Open(const std::string& id, const Viewer& viewer);

  // No submissions from now on; watchers are told.
  void Drain();
  bool draining();

  // For the runner, about the job that it runs. Each tells the watchers. A job that was cancelled
  // or deleted meanwhile is kFailedPrecondition or kNotFound.

  // Called with each new job.
  void SetWaker(std::function<void()> waker);
  // From here on a cancel or deletion cancels `token`; files are left to the runner.
  void SetCurrent(const std::string& id, std::shared_ptr<CancellationToken> token);
  // Removes the files of the job if it has ended or is gone.
  void ClearCurrent();
  absl::Status Save(const Job& job);
  absl::Status SaveLayer(const Job& job, const FinishedLayer& layer);
  // In memory only, until the next Save.
  void ShowProgress(const Job& job);
  absl::Status Fail(Job job, const absl::Status& error);
  absl::Status Succeed(Job job, const FinishedResult& result);

 private:
  friend class Submission;
  Jobs(std::filesystem::path state_dir, const JobLimits& limits, telemetry::Metrics& metrics,
       std::unique_ptr<JobStore> store);
  absl::Status Recover();
  void RemoveStrayFolders();
  absl::StatusOr<Job> Insert(Job job, const std::filesystem::path& folder);
  absl::StatusOr<Job> Find(const std::string& id, const Viewer& viewer);
  void Overlay(Job& job) ABSL_LOCKS_EXCLUDED(mutex_);
  bool CancelIfCurrent(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Metrics, watchers and the log of a job that has just ended.
  void ReportEnd(const Job& job);
  void UpdateGauges();
  // Forgets what ShowProgress has shown.
  void Hide();
  // Removes what an ended job does not need.
  void CleanUp(const Job& job);
  void RemoveFiles(const std::string& id);
  void RunKeeper();
  void EnforceRetention(double seconds);

  const std::filesystem::path folder_;    // Of the jobs' folders.
  const std::filesystem::path incoming_;  // Of submissions.
  const JobLimits limits_;
  telemetry::Metrics& metrics_;
  const std::unique_ptr<JobStore> store_;
  JobFeed feed_;
  absl::Mutex mutex_;
  std::function<void()> waker_ ABSL_GUARDED_BY(mutex_);
  std::string current_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<CancellationToken> current_token_ ABSL_GUARDED_BY(mutex_);
  std::optional<Job> shown_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread keeper_;
};

}  // namespace ess::jobs
