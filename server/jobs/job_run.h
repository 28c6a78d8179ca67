// One job while it is computed: which layers of which prompts are done, and the step that is next.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/jobs/job_preparation.h"
#include "server/jobs/jobs.h"
#include "server/jobs/result_file.h"
#include "server/jobs/result_layout.h"
#include "server/pipeline/profile_pipeline.h"
#include "server/residency/model_residency.h"

namespace ess::jobs {

// What runs need; everything outlives them.
struct RunServices {
  Jobs& jobs;
  const ProfilePipeline& pipeline;
  const residency::ModelResidency& residency;
  std::string server_version;
};

// Not thread-safe. All progress is in state_dir: a run can be dropped at any time, in the middle of
// a step too, and opened again.
class JobRun {
 public:
  // `specification`: without prompts. Errors: those of the store; kDataLoss  its files are broken.
  static absl::StatusOr<std::unique_ptr<JobRun>> Open(const RunServices& services, Job job,
                                                      ProfileJob specification);

  Job& job() { return job_; }
  const ProfileJob& specification() const { return specification_; }

  // Whether every value is there, and only Finish is left.
  bool IsComputed() const { return plan_ != nullptr && next_group_ == std::ssize(groups_); }
  // Tokens of the next step, for the queue.
  int64_t NextTokens() const;

  // Tokenizes, or runs one group of prompts through the layers that it lacks.
  // Errors: those of PrepareJob and ProfilePipeline::Run. kAborted  it gave way to others and
  //         wants to be called again. kFailedPrecondition  the weights have changed since the job
  //         began.
  absl::Status Step(const StepContext& step);

  // Makes the result from the working file, and ends the job.
  absl::Status Finish(const CancellationToken& cancellation);

  // Adds to the time that groups took, for the estimate of what is left.
  void AddRunTime(double seconds);

 private:
  class GroupReceiver;

  JobRun(const RunServices& services, Job job, ProfileJob specification);
  absl::Status Load();
  absl::Status TakePlan(JobPlan plan);
  absl::StatusOr<ProfileJob> GroupJob(const PromptGroup& group) const;
  // A layer of a group is saved.
  void MarkDone(int64_t group, int64_t layer);
  // Counts of the job and what is left; with `layer_prompts` of a layer that is not saved yet.
  void ShowDone(int64_t layer_prompts);
  void AdvanceGroup();

  const RunServices services_;
  const JobFiles files_;
  Job job_;
  const ProfileJob specification_;
  std::unique_ptr<JobPlan> plan_;  // Null before the preparation; the others then, too.
  std::unique_ptr<ResultLayout> layout_;
  std::unique_ptr<ResultFile> result_;  // Null, too, when the result is whole.
  std::vector<PromptGroup> groups_;
  std::vector<double> work_;             // Of each group.
  std::vector<int64_t> first_token_;     // Of each group.
  std::vector<std::vector<bool>> done_;  // [groups][layers]
  std::vector<int64_t> finished_;        // Layers of each group.
  int64_t cells_saved_ = 0;
  double work_done_ = 0;
  double seconds_per_work_ = 0;  // As measured; 0: not yet.
  int64_t next_group_ = 0;
};

}  // namespace ess::jobs
