#include "server/rpc/profile_handler.h"

#include <deque>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/profile_messages.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxPendingBytes = 2 << 20;

// Life: constructed -> Begin -> [Work on a queue thread] -> End -> OnDone, which deletes it.
// gRPC calls OnWriteDone and OnCancel from its own threads meanwhile. One write is in flight.
class ProfileCall : public grpc::ServerWriteReactor<v1::ProfileResponse>, private ProfileReceiver {
 public:
  ProfileCall(const ProfileContext& context, grpc::CallbackServerContext* call,
              const v1::ProfileRequest& request)
      : context_(context),
        cancellation_(absl::FromChrono(call->deadline())),
        observer_(context.metrics, "Profile",
                  context.catalogue.Find(request.model()).ok() ? request.model() : "",
                  static_cast<int64_t>(request.ByteSizeLong())) {}

  void Begin(const v1::ProfileRequest& request) {
    absl::StatusOr<ProfileJob> job = DecodeProfileRequest(request, context_.limits);
    if (!job.ok()) return End(job.status());
    job_ = *std::move(job);
    job_.request_id = observer_.request_id();
    context_.metrics.queue_requests.Add({observer_.model(), "normal"}, 1);
    const absl::Status queued = context_.queue.Submit([this] { Work(); });
    if (queued.ok()) return;
    context_.metrics.queue_requests.Add({observer_.model(), "normal"}, -1);
    const bool full = queued.code() == absl::StatusCode::kResourceExhausted;
    context_.metrics.requests_shed.Increment(
        {observer_.model(), full ? "queue_requests" : "drain"});
    End(queued);
  }

  void OnWriteDone(bool ok) override {
    const v1::ProfileResponse* next = nullptr;
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      pending_bytes_ -= pending_.front().ByteSizeLong();
      pending_.pop_front();
      if (!ok) {
        pending_.clear();
        pending_bytes_ = 0;
        broken_ = true;
      }
      if (pending_.empty()) {
        writing_ = false;
        finish = ended_;
      } else {
        next = &pending_.front();
      }
    }
    if (!ok) cancellation_.Cancel();
    if (next != nullptr) StartWrite(next);
    if (finish) Finish(ToGrpcStatus(status_));
  }

  void OnCancel() override {
    cancellation_.Cancel();
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    context_.metrics.requests_cancelled.Increment({observer_.model(), stage_});
  }

  void OnDone() override {
    observer_.Finish(status_, stages_);
    delete this;
  }

 private:
  void Work() {
    context_.metrics.queue_requests.Add({observer_.model(), "normal"}, -1);
    const absl::Duration waited = absl::Now() - arrival_;
    context_.metrics.queue_wait.Observe({observer_.model()}, absl::ToDoubleSeconds(waited));
    stages_.Add("queue", waited);
    SetStage("running");
    const absl::Status status = CatchTorch(
        "profile", [this] { return context_.pipeline.Run(job_, cancellation_, *this, stages_); });
    SetStage("sending");
    End(status);
  }

  // The last thing that the call's own thread does: OnDone may follow at once.
  void End(const absl::Status& status) {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      status_ = status;
      ended_ = true;
      finish = !writing_;
    }
    if (finish) Finish(ToGrpcStatus(status));
  }

  absl::Status Send(v1::ProfileResponse message) {
    const v1::ProfileResponse* first = nullptr;
    const size_t bytes = message.ByteSizeLong();
    observer_.CountSent(static_cast<int64_t>(bytes));
    {
      absl::MutexLock lock(&mutex_);
      auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return broken_ || pending_bytes_ < kMaxPendingBytes;
      };
      if (!room()) {
        const absl::Time start = absl::Now();
        mutex_.AwaitWithDeadline(absl::Condition(&room), cancellation_.deadline());
        observer_.CountStalled(absl::Now() - start);
      }
      if (broken_ || !room()) {
        const absl::Status reason = cancellation_.Check();
        return reason.ok() ? absl::CancelledError("the caller left") : reason;
      }
      pending_.push_back(std::move(message));
      pending_bytes_ += bytes;
      if (!writing_) {
        writing_ = true;
        first = &pending_.front();
      }
    }
    if (first != nullptr) StartWrite(first);
    return absl::OkStatus();
  }

  absl::Status OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                      const std::vector<std::vector<std::string>>& token_texts) override {
    plan_ = &plan;
    int64_t tokens = 0;
    for (const auto& ids : plan.token_ids) tokens += static_cast<int64_t>(ids.size());
    observer_.SetPrompts(static_cast<int64_t>(plan.token_ids.size()), tokens);
    ESS_RETURN_IF_ERROR(WriteHeader(job_, plan, model, context_.server_version, writer_));
    return WriteTokens(job_, plan, token_texts, writer_);
  }

  absl::Status OnEss(const EssPiece& piece) override {
    return WriteEss(job_, *plan_, piece, writer_);
  }

  absl::Status OnSummary(const ProfileSummary& summary) override {
    return WriteSummary(summary, writer_);
  }

  void SetStage(const char* stage) {
    absl::MutexLock lock(&mutex_);
    stage_ = stage;
  }

  struct Writer {
    ProfileCall* call;
    absl::Status operator()(v1::ProfileResponse message) const {
      return call->Send(std::move(message));
    }
  };

  const ProfileContext& context_;
  const absl::Time arrival_ = absl::Now();
  CancellationToken cancellation_;
  CallObserver observer_;
  ProfileJob job_;
  const ProfilePlan* plan_ = nullptr;  // The pipeline's, while it runs.
  StageTimes stages_;
  const Writer writer_{this};

  absl::Mutex mutex_;
  std::deque<v1::ProfileResponse> pending_ ABSL_GUARDED_BY(mutex_);  // The first is being written.
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // Nobody reads any more.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  const char* stage_ ABSL_GUARDED_BY(mutex_) = "queued";
  absl::Status status_;  // Constant once `ended_`.
};

}  // namespace

grpc::ServerWriteReactor<v1::ProfileResponse>* StartProfile(const ProfileContext& context,
                                                            grpc::CallbackServerContext* call,
                                                            const v1::ProfileRequest* request) {
  auto* profile = new ProfileCall(context, call, *request);  // Deletes itself in OnDone.
  profile->Begin(*request);
  return profile;
}

}  // namespace ess::rpc
