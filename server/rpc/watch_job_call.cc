// WatchJob: the job now, then at each change, until it has ended.
#include <memory>
#include <optional>
#include <string>

#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/rpc/job_call.h"
#include "server/rpc/job_codec.h"

namespace ess::rpc {
namespace {

// A change that comes while another is looked up or written is looked up after it: a slow reader
// gets fewer messages, and never an old one after a new one.
class WatchJobCall : public JobCall<grpc::ServerWriteReactor<v1::Job>> {
 public:
  WatchJobCall(const JobsContext& context, grpc::CallbackServerContext* call,
               const v1::WatchJobRequest& request)
      : JobCall(context, call, "WatchJob"), id_(request.id()) {
    observer_.SetFacts({{"job", CutText(id_)}});
  }

  void Begin() override {
    const std::weak_ptr<JobCall> weak = weak_from_this();
    listener_ = context_.jobs->feed().Add(id_, [weak] {
      if (const auto call = weak.lock()) static_cast<WatchJobCall&>(*call).OnChange();
    });
    Queue([this] { Send(); });
  }

  void OnWriteDone(bool ok) override {
    Written(ok);
    Continue();
  }

  void OnCancel() override {
    JobCall::OnCancel();
    OnChange();
  }

 private:
  void OnChange() {
    {
      absl::MutexLock lock(&mutex_);
      if (busy_) {
        changed_ = true;
        return;
      }
      busy_ = true;
    }
    Queue([this] { Send(); });
  }

  // After a write: the next change, if there was one meanwhile.
  void Continue() {
    {
      absl::MutexLock lock(&mutex_);
      if (!changed_ && !last_ && cancellation_.Check().ok()) {
        busy_ = false;
        return;
      }
      changed_ = false;
    }
    Queue([this] { Send(); });
  }

  void Send() {
    absl::Status status = cancellation_.Check();
    if (!status.ok() || last_) return End(last_ ? absl::OkStatus() : status);
    if (context_.jobs->feed().closed()) {
      return End(
          absl::UnavailableError("the server is shutting down; the job goes on when it is "
                                 "back"));
    }
    const absl::StatusOr<jobs::Job> job = context_.jobs->Get(id_, ViewerOf(observer_.identity()));
    if (!job.ok()) return End(job.status());
    message_.Clear();
    EncodeJob(*job, &message_);
    last_ = jobs::HasEnded(job->state);
    Write(message_);
  }

  void Closed() override {
    if (listener_ != 0) context_.jobs->feed().Remove(listener_);
  }

  const std::string id_;
  int64_t listener_ = 0;
  v1::Job message_;    // Being written.
  bool last_ = false;  // What is written is the end.
  absl::Mutex mutex_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = true;  // A lookup or a write is under way, or to come.
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::Job>* StartWatchJob(const JobsContext& context,
                                                 grpc::CallbackServerContext* call,
                                                 const v1::WatchJobRequest* request) {
  return WatchJobCall::Start<WatchJobCall>(context, call, *request);
}

}  // namespace ess::rpc
