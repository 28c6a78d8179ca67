#include "server/rpc/profile_operators_handler.h"

#include <memory>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/pipeline/operators_pipeline.h"
#include "server/rpc/message_size.h"
#include "server/rpc/operator_messages.h"
#include "server/rpc/operator_upload.h"
#include "server/rpc/proto_codec.h"
#include "server/rpc/stream_call.h"

namespace ess::rpc {
namespace {

using OperatorsReactor =
    grpc::ServerBidiReactor<v1::ProfileOperatorsRequest, v1::ProfileOperatorsResponse>;
using OperatorsStream = StreamCall<OperatorsReactor, v1::ProfileOperatorsResponse>;

class OperatorsCall : public OperatorsStream, private OperatorsReceiver {
 public:
  OperatorsCall(const OperatorsContext& context, grpc::CallbackServerContext* call)
      : OperatorsStream({context.services, context.queue, context.longest_stall}, call,
                        "ProfileOperators",
                        /*served_model=*/"", /*request_bytes=*/0),
        context_(context),
        call_(call) {}

  void OnReadDone(bool ok) override {
    if (!ok) return EndOfRequests();
    observer().CountReceived(static_cast<int64_t>(request_.ByteSizeLong()));
    const absl::Status status = CatchTorch("arguments", [this] { return Receive(request_); });
    if (!status.ok()) return End(status);
    StartRead(&request_);
  }

 private:
  void Begin() override { StartRead(&request_); }

  // The caller has half-closed the stream, or left.
  void EndOfRequests() {
    request_.Clear();
    absl::Status status = cancellation().Check();
    if (status.ok() && call_->IsCancelled()) status = absl::CancelledError("the caller left");
    if (status.ok() && !upload_) {
      status = absl::InvalidArgumentError("declaration: the stream ended without one");
    }
    if (status.ok()) status = upload_->CheckComplete();
    if (!status.ok()) return End(status);
    stages().Add("receive", absl::Now() - arrival_);
    if (Enqueue(priority_, job_.shape.length)) {
      StartQueued(admission::Weight::kLarge);
    }
  }

  absl::Status Receive(const v1::ProfileOperatorsRequest& request) {
    if (const size_t bytes = request.ByteSizeLong(); bytes > kMaxMessageBytes) {
      return absl::InvalidArgumentError(
          fmt::format("message: {} bytes; the limit is {}", bytes, kMaxMessageBytes));
    }
    switch (request.message_case()) {
      case v1::ProfileOperatorsRequest::kDeclaration:
        return Declare(request.declaration());
      case v1::ProfileOperatorsRequest::kData:
        if (!upload_) {
          return absl::InvalidArgumentError("data: it came before the declaration");
        }
        return upload_->Add(request.data());
      case v1::ProfileOperatorsRequest::MESSAGE_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError("message: neither a declaration nor data");
  }

  absl::Status Declare(const v1::OperatorDeclaration& declaration) {
    if (upload_) return absl::InvalidArgumentError("declaration: there is one already");
    ESS_ASSIGN_OR_RETURN(job_, DecodeOperatorDeclaration(declaration, context_.limits));
    ESS_ASSIGN_OR_RETURN(priority_, DecodePriority(declaration.priority()));
    job_.request_id = observer().request_id();
    observer().SetFacts({{"class", job_.class_name},
                         {"operators", job_.shape.head_count},
                         {"positions", job_.shape.length}});
    int64_t bytes = 0;
    for (const operators::ArgumentDeclaration& argument : job_.arguments) {
      bytes += ByteCount(argument);
    }
    absl::StatusOr<admission::ByteBudget::Reservation> reserved = context_.budget.Reserve(bytes);
    if (!reserved.ok()) {
      context_.services.metrics.requests_shed.Increment({observer().model(), "operator_bytes"});
      return reserved.status();
    }
    reservation_ = *std::move(reserved);
    upload_.emplace(job_);
    return absl::OkStatus();
  }

  absl::Status Run() override {
    return ProfileOperators(job_, upload_->arguments(), context_.engine, cancellation(), *this,
                            stages());
  }

  void ReleaseInput() override {
    upload_.reset();
    reservation_ = {};
  }

  absl::Status OnBegin(const operators::StateSize& state_size) override {
    return WriteOperatorsHeader(job_, state_size, writer_);
  }

  absl::Status OnEss(int64_t first, const OperatorEss& ess) override {
    return WriteOperatorsEss(job_, first, ess, writer_);
  }

  absl::Status OnSummary(const LayerRecord& record) override {
    double seconds = 0;
    for (const auto& [stage, time] : stages().seconds()) {
      if (stage != "queue" && stage != "receive") seconds += time;
    }
    return WriteOperatorsSummary(record, seconds, writer_);
  }

  struct Writer {
    OperatorsCall* call;
    absl::Status operator()(v1::ProfileOperatorsResponse message) const {
      return call->Send(std::move(message));
    }
  };

  const OperatorsContext& context_;
  grpc::CallbackServerContext* const call_;
  const absl::Time arrival_ = absl::Now();
  v1::ProfileOperatorsRequest request_;  // Being read.
  OperatorsJob job_;
  admission::Priority priority_ = admission::Priority::kNormal;
  admission::ByteBudget::Reservation reservation_;
  std::optional<OperatorUpload> upload_;
  const Writer writer_{this};
};

}  // namespace

OperatorsReactor* StartProfileOperators(const OperatorsContext& context,
                                        grpc::CallbackServerContext* call) {
  return OperatorsStream::Start<OperatorsCall>(context, call);
}

}  // namespace ess::rpc
