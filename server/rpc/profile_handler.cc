#include "server/rpc/profile_handler.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <memory>
#include <utility>

#include "ess/v1/profiler.pb.h"
#include "server/base/status_macros.h"
#include "server/rpc/profile_messages.h"
#include "server/rpc/proto_codec.h"
#include "server/rpc/stream_call.h"

namespace ess::rpc {
namespace {

using ProfileStream = StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>, grpc::ByteBuffer>;

class ProfileCall : public ProfileStream, private ProfileReceiver {
 public:
  // `parsed`: whether `request` is the whole of what came.
  ProfileCall(const ProfileContext& context, grpc::CallbackServerContext* call,
              v1::ProfileRequest request, bool parsed)
      : ProfileStream({context.services, context.queue, context.longest_stall}, call, "Profile",
                      context.catalogue.Find(request.model()).ok() ? request.model() : "",
                      static_cast<int64_t>(request.ByteSizeLong())),
        context_(context),
        request_(std::move(request)),
        parsed_(parsed) {}

 private:
  void Begin() override {
    if (!parsed_) {
      return End(absl::InvalidArgumentError("request: its bytes are no ess.v1.ProfileRequest"));
    }
    absl::StatusOr<ProfileJob> job = DecodeProfileRequest(request_, context_.limits);
    if (!job.ok()) return End(job.status());
    const absl::StatusOr<admission::Priority> priority = DecodePriority(request_.priority());
    if (!priority.ok()) return End(priority.status());
    request_ = {};  // The call may wait for long.
    job_ = *std::move(job);
    job_.request_id = observer().request_id();
    if (!Enqueue(*priority, ApproximateTokens(job_))) return;
    const auto self = std::static_pointer_cast<ProfileCall>(shared_from_this());
    context_.pipeline.WhenReady(job_,
                                std::shared_ptr<const CancellationToken>(self, &cancellation()),
                                [self](const absl::Status& status) { self->OnModelReady(status); });
  }

  void OnModelReady(const absl::Status& status) {
    if (!status.ok()) return EndQueued(status);
    small_ = context_.pipeline.IsSmall(job_);
    StartQueued(small_ ? admission::Weight::kSmall : admission::Weight::kLarge, "load");
  }

  absl::Status Run() override {
    return context_.pipeline.Run(job_, small_, cancellation(), Aside(), *this, stages());
  }

  absl::Status OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                      const std::vector<std::vector<std::string>>& token_texts) override {
    plan_ = &plan;
    observer().SetFacts({{"prompts", plan.lengths.size()}, {"positions", plan.PositionCount()}});
    ESS_RETURN_IF_ERROR(WriteHeader(job_, plan, model, context_.server_version, writer_));
    return WriteTokens(job_, plan, token_texts, writer_);
  }

  absl::Status OnEss(const EssPiece& piece) override {
    return WriteEss(job_, *plan_, piece, writer_);
  }

  absl::Status Yield(absl::FunctionRef<void()> release) override { return AwaitReader(release); }

  absl::Status OnSummary(const ProfileSummary& summary) override {
    return WriteSummary(summary, writer_);
  }

  struct Writer {
    ProfileCall* call;
    absl::Status operator()(grpc::ByteBuffer message) const {
      return call->Send(std::move(message));
    }
  };

  const ProfileContext& context_;
  v1::ProfileRequest request_;
  const bool parsed_;
  ProfileJob job_;
  bool small_ = false;
  const ProfilePlan* plan_ = nullptr;  // The pipeline's, while it runs.
  const Writer writer_{this};
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartProfile(const ProfileContext& context,
                                                         grpc::CallbackServerContext* call,
                                                         const grpc::ByteBuffer& request) {
  // gRPC keeps the bytes as long as the call, and its memory has a limit: they go now.
  auto& bytes = const_cast<grpc::ByteBuffer&>(request);
  v1::ProfileRequest message;
  const bool parsed =
      grpc::SerializationTraits<v1::ProfileRequest>::Deserialize(&bytes, &message).ok();
  bytes.Clear();
  return ProfileStream::Start<ProfileCall>(context, call, std::move(message), parsed);
}

}  // namespace ess::rpc
