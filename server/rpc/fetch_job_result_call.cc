// FetchJobResult: the file of a result, from any byte on.
#include <algorithm>
#include <optional>
#include <string>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/rpc/job_call.h"

namespace ess::rpc {
namespace {

constexpr int64_t kChunkBytes = 512 << 10;

// One chunk at a time is in memory. A job that is deleted meanwhile is sent to its end.
class FetchJobResultCall : public JobCall<grpc::ServerWriteReactor<v1::FetchJobResultResponse>> {
 public:
  FetchJobResultCall(const JobsContext& context, grpc::CallbackServerContext* call,
                     const v1::FetchJobResultRequest& request)
      : JobCall(context, call, "FetchJobResult"), id_(request.id()), offset_(request.offset()) {
    observer_.SetFacts({{"job", CutText(id_)}, {"offset", offset_}});
  }

  void Begin() override {
    Queue([this] {
      const absl::Status status = Open();
      if (!status.ok()) return End(status);
      SendNext();
    });
  }

  void OnWriteDone(bool ok) override {
    Written(ok);
    Queue([this] {
      if (offset_ == result_->job.result_bytes) return End(absl::OkStatus());
      SendNext();
    });
  }

 private:
  absl::Status Open() {
    absl::StatusOr<jobs::Jobs::OpenResult> result =
        context_.jobs->Open(id_, ViewerOf(observer_.identity()));
    ESS_RETURN_IF_ERROR(result.status());
    result_.emplace(*std::move(result));
    const int64_t size = result_->job.result_bytes;
    if (offset_ >= 0 && offset_ <= size) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format(
        "offset: {}; it lies between 0 and {}, the bytes of the result", offset_, size));
  }

  void SendNext() {
    if (const absl::Status left = cancellation_.Check(); !left.ok()) return End(left);
    const int64_t size = result_->job.result_bytes;
    const int64_t bytes = std::min(kChunkBytes, size - offset_);
    std::string* data = message_.mutable_data();
    data->resize(static_cast<size_t>(bytes));
    const absl::Status read = result_->file.ReadAt(offset_, data->data(), bytes);
    if (!read.ok()) return End(read);
    message_.set_offset(offset_);
    message_.set_total_bytes(size);
    message_.set_sha256(result_->job.result_sha256);
    offset_ += bytes;
    Write(message_);
  }

  const std::string id_;
  int64_t offset_;
  std::optional<jobs::Jobs::OpenResult> result_;
  v1::FetchJobResultResponse message_;  // Being written.
};

}  // namespace

grpc::ServerWriteReactor<v1::FetchJobResultResponse>* StartFetchJobResult(
    const JobsContext& context, grpc::CallbackServerContext* call,
    const v1::FetchJobResultRequest* request) {
  return FetchJobResultCall::Start<FetchJobResultCall>(context, call, *request);
}

}  // namespace ess::rpc
