// The answer messages of Profile, each at most 1 MiB, as the bytes that go out. Values are copied
// once, from where the engine left them into the memory that gRPC sends.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "ess/v1/profiler.pb.h"
#include "server/pipeline/profile_job.h"
#include "server/residency/model_residency.h"

namespace ess::rpc {

// Sends one v1::ProfileResponse; an error ends the profile.
using MessageWriter = absl::FunctionRef<absl::Status(grpc::ByteBuffer message)>;

// Errors: kInvalidArgument  a selection so scattered that the header exceeds 1 MiB.
absl::Status WriteHeader(const ProfileJob& job, const ProfilePlan& plan,
                         const residency::ModelStatus& model, const std::string& server_version,
                         MessageWriter write);

// `texts`: per prompt, the text of each token, or nothing.
absl::Status WriteTokens(const ProfileJob& job, const ProfilePlan& plan,
                         const std::vector<std::vector<std::string>>& texts, MessageWriter write);

absl::Status WriteEss(const ProfileJob& job, const ProfilePlan& plan, const EssPiece& piece,
                      MessageWriter write);

absl::Status WriteSummary(const ProfileSummary& summary, MessageWriter write);

}  // namespace ess::rpc
