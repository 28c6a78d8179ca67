// EstimateProfile: what a Profile of the same request would cost.
#pragma once

#include <memory>

#include "ess/v1/profiler.pb.h"
#include "server/admission/work_queue.h"
#include "server/base/cancellation.h"
#include "server/rpc/profile_handler.h"
#include "server/rpc/unary_call.h"

namespace ess::rpc {

// Decodes, tokenizes and plans as Profile does; loads a cold model; runs nothing. Goes on in
// `queue`, where the caller has a place, once the model is there, and calls `done` once; the
// messages live until then. Errors: those that Profile answers before it runs anything.
void StartEstimate(const ProfileContext& context, admission::WorkQueue& queue,
                   const v1::ProfileRequest& request,
                   std::shared_ptr<const CancellationToken> cancellation,
                   v1::EstimateProfileResponse* response, UnaryCall::Done done);

}  // namespace ess::rpc
