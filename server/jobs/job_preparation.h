// The first step of a job: its prompts become token ids, and the place of every value is known.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/admission/request_queue.h"
#include "server/base/cancellation.h"
#include "server/jobs/job_files.h"
#include "server/jobs/job_plan.h"
#include "server/pipeline/profile_pipeline.h"

namespace ess::jobs {

// What every step of a job begins and goes on with.
struct StepContext {
  admission::RequestQueue::Slot& slot;
  const CancellationToken& cancellation;
};

// How a step waits for models and memory (wait_aside.h).
inline auto Aside(const StepContext& step) {
  return [step](absl::FunctionRef<absl::Status()> wait) {
    return step.slot.WaitAside(wait, step.cancellation);
  };
}

// Lets interactive requests run first. Errors: those of Slot::Yield.
absl::Status GiveWay(const StepContext& step);

// Tokenizes the prompts of `files`, a few at a time; checks each as Profile checks it, the
// selections against the longest, and the size of the result against `max_result_bytes` and the
// disk; writes the files that JobFiles names, the working file with them, and the plan last.
// `specification`: without prompts.
// Errors: those of ProfilePipeline::Prepare; kInvalidArgument  the result would exceed
//         max_job_result_bytes; kResourceExhausted  or what the disk has free.
absl::StatusOr<JobPlan> PrepareJob(const JobFiles& files, const ProfileJob& specification,
                                   const ProfilePipeline& pipeline,
                                   const std::string& server_version, int64_t max_result_bytes,
                                   const StepContext& step);

// What PrepareJob has written. Errors: kDataLoss.
absl::StatusOr<JobPlan> ReadPreparedPlan(const JobFiles& files);

}  // namespace ess::jobs
