// EstimateProfile: what a Profile of the same request would cost.
#pragma once

#include "absl/status/status.h"
#include "ess/v1/profiler.pb.h"
#include "server/base/cancellation.h"
#include "server/rpc/profile_handler.h"

namespace ess::rpc {

// Decodes, tokenizes and plans as Profile does; loads a cold model; runs nothing.
// Errors: those that Profile answers before it runs anything.
absl::Status EstimateProfile(const ProfileContext& context, const v1::ProfileRequest& request,
                             const CancellationToken& cancellation,
                             v1::EstimateProfileResponse* response);

}  // namespace ess::rpc
