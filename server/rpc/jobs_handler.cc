#include "server/rpc/jobs_handler.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/rpc/job_codec.h"
#include "server/rpc/message_size.h"
#include "server/rpc/unary_call.h"

namespace ess::rpc {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

using UnaryWork = std::function<absl::Status(const jobs::Viewer& viewer)>;

grpc::ServerUnaryReactor* StartUnary(const JobsContext& context, grpc::CallbackServerContext* call,
                                     const char* rpc, UnaryWork work) {
  return UnaryCall::Start(
      context.services, call, rpc, "",
      [&context, work = std::move(work)](const CancellationToken&,
                                         const Identity& caller) -> absl::Status {
        ESS_RETURN_IF_ERROR(CheckHasJobs(context));
        return work(ViewerOf(caller));
      },
      &context.queue);
}

// A page token is the sequence of the last job of the page before.
absl::StatusOr<std::optional<int64_t>> DecodePageToken(const std::string& token) {
  if (token.empty()) return std::optional<int64_t>();
  int64_t before = 0;
  if (!absl::SimpleAtoi(token, &before) || before < 1) {
    return absl::InvalidArgumentError(
        fmt::format("page_token: '{}' is none of this server's", CutText(token)));
  }
  return std::optional(before);
}

absl::Status ListJobs(const JobsContext& context, const v1::ListJobsRequest& request,
                      const jobs::Viewer& viewer, v1::ListJobsResponse* response) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return absl::InvalidArgumentError(
        fmt::format("page_size: {}; it lies between 1 and {}, or is 0 for {}", request.page_size(),
                    kMaxPageSize, kDefaultPageSize));
  }
  const int size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  ESS_ASSIGN_OR_RETURN(const auto state, DecodeJobState(request.state()));
  ESS_ASSIGN_OR_RETURN(const auto before, DecodePageToken(request.page_token()));
  ESS_ASSIGN_OR_RETURN(const std::vector<jobs::Job> found,
                       context.jobs->List(viewer, state, before, size + 1));
  size_t bytes = 0;
  for (const jobs::Job& job : found) {
    v1::Job message;
    EncodeJob(job, &message);
    bytes += message.ByteSizeLong() + 16;
    const bool full = response->jobs_size() == size || bytes > kPayloadBytes;
    if (full && response->jobs_size() > 0) {
      const size_t last = response->jobs_size() - 1;
      response->set_next_page_token(std::to_string(found[last].sequence));
      return absl::OkStatus();
    }
    *response->add_jobs() = std::move(message);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckHasJobs(const JobsContext& context) {
  if (context.jobs != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "jobs: this server keeps none, since it has no state_dir (docs/operations.md); Profile works "
      "without");
}

jobs::Viewer ViewerOf(const Identity& caller) {
  return {.owner = caller.subject, .admin = caller.admin};
}

grpc::ServerUnaryReactor* StartGetJob(const JobsContext& context, grpc::CallbackServerContext* call,
                                      const v1::GetJobRequest* request, v1::Job* response) {
  return StartUnary(context, call, "GetJob",
                    [&context, request, response](const jobs::Viewer& viewer) -> absl::Status {
                      ESS_ASSIGN_OR_RETURN(const jobs::Job job,
                                           context.jobs->Get(request->id(), viewer));
                      EncodeJob(job, response);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* StartListJobs(const JobsContext& context,
                                        grpc::CallbackServerContext* call,
                                        const v1::ListJobsRequest* request,
                                        v1::ListJobsResponse* response) {
  return StartUnary(context, call, "ListJobs",
                    [&context, request, response](const jobs::Viewer& viewer) {
                      return ListJobs(context, *request, viewer, response);
                    });
}

grpc::ServerUnaryReactor* StartCancelJob(const JobsContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::CancelJobRequest* request, v1::Job* response) {
  return StartUnary(context, call, "CancelJob",
                    [&context, request, response](const jobs::Viewer& viewer) -> absl::Status {
                      ESS_ASSIGN_OR_RETURN(const jobs::Job job,
                                           context.jobs->Cancel(request->id(), viewer));
                      EncodeJob(job, response);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* StartDeleteJob(const JobsContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::DeleteJobRequest* request) {
  return StartUnary(context, call, "DeleteJob", [&context, request](const jobs::Viewer& viewer) {
    return context.jobs->Delete(request->id(), viewer);
  });
}

}  // namespace ess::rpc
