// SubmitJob: a specification, then its prompts, or a file that has them.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "fmt/format.h"
#include "server/base/open_under.h"
#include "server/base/status_macros.h"
#include "server/rpc/job_call.h"
#include "server/rpc/job_codec.h"
#include "server/rpc/message_size.h"

namespace ess::rpc {
namespace {

constexpr size_t kReadBytes = 1 << 20;

class SubmitJobCall : public JobCall<grpc::ServerReadReactor<v1::SubmitJobRequest>> {
 public:
  SubmitJobCall(const JobsContext& context, grpc::CallbackServerContext* call, v1::Job* response)
      : JobCall(context, call, "SubmitJob"), response_(response) {}

  void Begin() override { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (ok) observer_.CountReceived(static_cast<int64_t>(request_.ByteSizeLong()));
    Queue([this, ok] {
      const absl::Status status = ok ? Receive() : Commit();
      if (!ok || !status.ok()) {
        submission_.reset();
        End(status);
      } else {
        StartRead(&request_);
      }
    });
  }

 private:
  absl::Status Receive() {
    ESS_RETURN_IF_ERROR(cancellation_.Check());
    if (const size_t bytes = request_.ByteSizeLong(); bytes > kMaxMessageBytes) {
      return absl::InvalidArgumentError(
          fmt::format("message: {} bytes; the limit is {}", bytes, kMaxMessageBytes));
    }
    switch (request_.message_case()) {
      case v1::SubmitJobRequest::kSpecification:
        return Specify(request_.specification());
      case v1::SubmitJobRequest::kPrompts:
        if (submission_ == nullptr) {
          return absl::InvalidArgumentError("prompts: they came before the specification");
        }
        if (!prompts_file_.empty()) {
          return absl::InvalidArgumentError(
              "prompts: the specification names a prompts_file; give one or the other");
        }
        return submission_->Add(request_.prompts().json_lines());
      case v1::SubmitJobRequest::MESSAGE_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError("message: neither a specification nor prompts");
  }

  absl::Status Specify(const v1::JobSpecification& specification) {
    if (submission_ != nullptr) {
      return absl::InvalidArgumentError("specification: there is one already");
    }
    ESS_ASSIGN_OR_RETURN(
        jobs::JobRequest request,
        MakeJobRequest(specification, context_.default_measures, observer_.identity()));
    ESS_RETURN_IF_ERROR(context_.catalogue.Find(specification.model()).status());
    if (!specification.prompts_file().empty() && context_.prompt_root.empty()) {
      return absl::FailedPreconditionError(
          "prompts_file: this server has no prompt_root to look in; send the prompts");
    }
    prompts_file_ = specification.prompts_file();
    ESS_ASSIGN_OR_RETURN(submission_, context_.jobs->Begin(std::move(request)));
    return absl::OkStatus();
  }

  // The caller has half-closed the stream, or left.
  absl::Status Commit() {
    ESS_RETURN_IF_ERROR(cancellation_.Check());
    if (call_.IsCancelled()) return absl::CancelledError("the caller left");
    if (submission_ == nullptr) {
      return absl::InvalidArgumentError("specification: the stream ended without one");
    }
    if (!prompts_file_.empty()) ESS_RETURN_IF_ERROR(ReadPromptsFile());
    ESS_ASSIGN_OR_RETURN(const jobs::Job job, submission_->Commit());
    observer_.SetFacts({{"job", job.id}, {"prompts", job.prompts_total}});
    EncodeJob(job, response_);
    return absl::OkStatus();
  }

  absl::Status ReadPromptsFile() {
    absl::StatusOr<FileDescriptor> file = OpenUnder(context_.prompt_root, prompts_file_);
    if (!file.ok()) {
      return absl::Status(file.status().code(),
                          fmt::format("prompts_file: {}", std::string(file.status().message())));
    }
    std::string piece(kReadBytes, '\0');
    while (true) {
      ESS_RETURN_IF_ERROR(cancellation_.Check());
      const ssize_t bytes = read(file->get(), piece.data(), piece.size());
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes < 0) {
        return absl::FailedPreconditionError(
            fmt::format("prompts_file: cannot be read: {}", std::strerror(errno)));
      }
      if (bytes == 0) return absl::OkStatus();
      ESS_RETURN_IF_ERROR(submission_->Add({piece.data(), static_cast<size_t>(bytes)}));
    }
  }

  v1::Job* const response_;
  v1::SubmitJobRequest request_;  // Being read.
  std::string prompts_file_;
  std::unique_ptr<jobs::Submission> submission_;
};

}  // namespace

grpc::ServerReadReactor<v1::SubmitJobRequest>* StartSubmitJob(const JobsContext& context,
                                                              grpc::CallbackServerContext* call,
                                                              v1::Job* response) {
  return SubmitJobCall::Start<SubmitJobCall>(context, call, response);
}

}  // namespace ess::rpc
