#include "server/rpc/profile_handler.h"

#include <memory>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/rpc/profile_messages.h"
#include "server/rpc/proto_codec.h"
#include "server/rpc/stream_call.h"

namespace ess::rpc {
namespace {

using ProfileStream =
    StreamCall<grpc::ServerWriteReactor<v1::ProfileResponse>, v1::ProfileResponse>;

class ProfileCall : public ProfileStream, private ProfileReceiver {
 public:
  ProfileCall(const ProfileContext& context, grpc::CallbackServerContext* call,
              const v1::ProfileRequest& request)
      : ProfileStream({context.services, context.queue, context.longest_stall}, call, "Profile",
                      context.catalogue.Find(request.model()).ok() ? request.model() : "",
                      static_cast<int64_t>(request.ByteSizeLong())),
        context_(context),
        request_(request) {}

 private:
  void Begin() override {
    absl::StatusOr<ProfileJob> job = DecodeProfileRequest(request_, context_.limits);
    if (!job.ok()) return End(job.status());
    const absl::StatusOr<admission::Priority> priority = DecodePriority(request_.priority());
    if (!priority.ok()) return End(priority.status());
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
    return context_.pipeline.Run(job_, small_, cancellation(), *this, stages());
  }

  absl::Status OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                      const std::vector<std::vector<std::string>>& token_texts) override {
    plan_ = &plan;
    observer().SetFacts({{"prompts", plan.lengths.size()}, {"positions", plan.PositionCount()}});
    ESS_RETURN_IF_ERROR(WriteHeader(job_, plan, model, context_.server_version, writer_));
    return WriteTokens(job_, plan, token_texts, writer_);
  }

  absl::Status OnEss(const EssPiece& piece) override {
    return WriteEss(job_, *plan_, piece, block_, writer_);
  }

  absl::Status Yield(absl::FunctionRef<void()> release) override { return AwaitReader(release); }

  absl::Status OnSummary(const ProfileSummary& summary) override {
    return WriteSummary(summary, writer_);
  }

  struct Writer {
    ProfileCall* call;
    absl::Status operator()(v1::ProfileResponse& message) const { return call->Send(message); }
  };

  const ProfileContext& context_;
  const v1::ProfileRequest& request_;
  ProfileJob job_;
  bool small_ = false;
  const ProfilePlan* plan_ = nullptr;  // The pipeline's, while it runs.
  v1::ProfileResponse block_;
  const Writer writer_{this};
};

}  // namespace

grpc::ServerWriteReactor<v1::ProfileResponse>* StartProfile(const ProfileContext& context,
                                                            grpc::CallbackServerContext* call,
                                                            const v1::ProfileRequest* request) {
  return ProfileStream::Start<ProfileCall>(context, call, *request);
}

}  // namespace ess::rpc
