// Checks a job against its model and says what will be computed.
#pragma once

#include "absl/status/statusor.h"
#include "server/pipeline/profile_job.h"

namespace ess {

struct ProfileLimits {
  int64_t max_prompt_tokens = 8192;
  double max_reference_work = 2e12;
  int64_t max_result_bytes = int64_t{16} << 30;
};

// `token_ids`: one list per prompt of the job; empty ones of a Gaussian job.
// Errors: kInvalidArgument  names field, value and limit: no tokens, a token id outside the
//         vocabulary, a prompt longer than the model's or the server's limit, a selection that
//         exists nowhere, kCausal of an operator that is no recurrence, more reference work or a
//         larger answer than allowed.
absl::StatusOr<ProfilePlan> MakeProfilePlan(const ProfileJob& job,
                                            std::vector<std::vector<int64_t>> token_ids,
                                            const models::ModelDescription& model,
                                            const ProfileLimits& limits);

}  // namespace ess
