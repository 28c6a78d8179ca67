#include "server/rpc/status_to_grpc.h"

#include <string>

#include "server/admission/retry_after.h"
#include "server/base/cut_text.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxMessageBytes = 4096;

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The two enumerations have the same numbers.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      CutText(std::string(status.message()), kMaxMessageBytes));
}

void AddRetryAfter(const absl::Status& status, grpc::CallbackServerContext& call) {
  if (const auto time = admission::RetryAfter(status)) {
    call.AddTrailingMetadata(admission::kRetryAfterMetadata,
                             std::to_string(absl::ToInt64Milliseconds(*time)));
  }
}

}  // namespace ess::rpc
