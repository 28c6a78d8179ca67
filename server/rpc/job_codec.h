// Job messages <-> what server/jobs knows.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ess/v1/jobs.pb.h"
#include "server/jobs/jobs.h"
#include "server/pipeline/profile_job.h"
#include "server/rpc/access.h"

namespace ess::rpc {

// A job without its prompts.
// Errors: kInvalidArgument  as DecodeProfileRequest.
absl::StatusOr<ProfileJob> DecodeJobSpecification(const v1::JobSpecification& specification,
                                                  const std::vector<Measure>& default_measures);

// The same of JobRequest::specification.
absl::StatusOr<ProfileJob> ParseJobSpecification(const std::string& bytes,
                                                 const std::vector<Measure>& default_measures);

// Checks everything of a specification but the model, and that the prompts are there.
// Errors: kInvalidArgument  names the field, the value and the limit.
absl::StatusOr<jobs::JobRequest> MakeJobRequest(const v1::JobSpecification& specification,
                                                const std::vector<Measure>& default_measures,
                                                const Identity& caller);

// Errors: kInvalidArgument  a value that is no JobState.
absl::StatusOr<std::optional<jobs::JobState>> DecodeJobState(v1::JobState state);

void EncodeJob(const jobs::Job& job, v1::Job* message);

}  // namespace ess::rpc
