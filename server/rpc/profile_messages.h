// The answer messages of Profile, each at most 1 MiB.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "ess/v1/profiler.pb.h"
#include "server/pipeline/profile_job.h"
#include "server/residency/model_residency.h"

namespace ess::rpc {

// Sends one message; an error ends the profile. It may leave a message that was sent earlier in the
// place of `message`: memory to use again.
using MessageWriter = absl::FunctionRef<absl::Status(v1::ProfileResponse& message)>;

// Errors: kInvalidArgument  a selection so scattered that the header exceeds 1 MiB.
absl::Status WriteHeader(const ProfileJob& job, const ProfilePlan& plan,
                         const residency::ModelStatus& model, const std::string& server_version,
                         MessageWriter write);

// `texts`: per prompt, the text of each token, or nothing.
absl::Status WriteTokens(const ProfileJob& job, const ProfilePlan& plan,
                         const std::vector<std::vector<std::string>>& texts, MessageWriter write);

// `block` is any message, and is kept from piece to piece for its memory.
absl::Status WriteEss(const ProfileJob& job, const ProfilePlan& plan, const EssPiece& piece,
                      v1::ProfileResponse& block, MessageWriter write);

absl::Status WriteSummary(const ProfileSummary& summary, MessageWriter write);

}  // namespace ess::rpc
