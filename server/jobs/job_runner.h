// Runs jobs, one step at a time, below everything interactive.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/admission/request_queue.h"
#include "server/base/cancellation.h"
#include "server/jobs/job_run.h"
#include "server/jobs/jobs.h"
#include "server/residency/model_catalogue.h"

namespace ess::jobs {

// One thread, which steps from group of prompts to group of prompts. Each group goes to the job of
// the highest priority; among these owners take turns, and of one owner's jobs the oldest is first.
// A group takes its turn in the queue of requests with low priority, and gives way between its
// steps.
class JobRunner {
 public:
  // Reads a Job::specification: a ProfileJob without prompts.
  using Decoder = std::function<absl::StatusOr<ProfileJob>(const std::string& specification)>;

  // All outlive the runner.
  JobRunner(const RunServices& services, admission::RequestQueue& queue,
            const residency::ModelCatalogue& catalogue, Decoder decoder);
  // Stops, and waits for the step to end.
  ~JobRunner();
  JobRunner(const JobRunner&) = delete;
  JobRunner& operator=(const JobRunner&) = delete;

  // The step ends at its next check, its job is queued again, and no other begins. Does not wait.
  void Stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct Retry {
    int attempts = 0;  // In a row, without progress.
    Clock::time_point not_before;
  };

  void RunThread();
  // Nothing to do, or stopped: nothing.
  std::optional<Job> Choose();
  // Closes the run of a job that was cancelled or deleted between its steps.
  void DropEnded();
  void RunStep(const Job& job);
  absl::Status OpenAndStep(const Job& job, const std::shared_ptr<CancellationToken>& token);
  // Runs `work` on a thread of the queue, once the model is in memory, and waits for it.
  absl::Status InSlot(const std::shared_ptr<CancellationToken>& token,
                      std::function<absl::Status(admission::RequestQueue::Slot&)> work);
  void HandleError(const absl::Status& error);
  // Puts the current job back into the queue.
  void Requeue();
  void FailJob(const absl::Status& error);
  void Wake();
  bool stopping();

  const RunServices services_;
  admission::RequestQueue& queue_;
  const residency::ModelCatalogue& catalogue_;
  const Decoder decoder_;

  // Of the thread.
  std::unique_ptr<JobRun> run_;            // Of the job that had the last step.
  std::map<std::string, int64_t> served_;  // By owner: ordinal of the last step.
  std::map<std::string, Retry> retries_;   // By job.
  int64_t steps_ = 0;

  absl::Mutex mutex_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<CancellationToken> token_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ess::jobs
