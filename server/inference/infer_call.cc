#include "server/inference/infer_call.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::inference {
namespace {

// Owns itself until OnDone; who calls back later holds a share.
class InferCall : public grpc::ServerUnaryReactor, public InferWork {
 public:
  InferCall(const InferContext& context, grpc::CallbackServerContext* call,
            const ModelInferRequest* request, ModelInferResponse* response)
      : InferWork(context, token_, *request, Answers::kOne),
        call_(call),
        response_(response),
        token_(rpc::DeadlineOf(context.services, *call)),
        observer_(context.services, *call, token_, "ModelInfer",
                  ServedName(context, request->model_name()),
                  static_cast<int64_t>(request->ByteSizeLong())) {}

  static InferCall* Start(const InferContext& context, grpc::CallbackServerContext* call,
                          const ModelInferRequest* request, ModelInferResponse* response) {
    const auto made = std::make_shared<InferCall>(context, call, request, response);
    made->self_ = made;
    if (const absl::Status& admitted = made->observer_.admitted(); !admitted.ok()) {
      made->OnFinished(admitted);
    } else {
      made->Begin(*request, made->observer_.request_id(), made->observer_.caller());
    }
    return made.get();
  }

  void OnCancel() override { Cancelled(context().services.calls.Cancel(token_)); }

  void OnDone() override {
    {
      absl::MutexLock lock(&mutex_);
      call_ = nullptr;
    }
    observer_.Finish(status_, stages());
    const std::shared_ptr<InferCall> last = std::move(self_);
  }

 private:
  absl::Status OnAnswer(ModelInferResponse answer, bool) override {
    *response_ = std::move(answer);
    observer_.CountSent(static_cast<int64_t>(response_->ByteSizeLong()));
    return absl::OkStatus();
  }

  void SetFacts(nlohmann::ordered_json facts) override { observer_.SetFacts(std::move(facts)); }

  void OnFinished(const absl::Status& status) override {
    status_ = status;
    {
      absl::MutexLock lock(&mutex_);
      rpc::AddRetryAfter(status_, *call_);
    }
    // An answer that nobody takes would keep its room in the budget of all answers.
    stall_timer_.Set(absl::ToChronoTime(absl::Now() + context().longest_stall),
                     [weak = weak_from_this(), this](bool expired) {
                       const std::shared_ptr<QueuedWork> alive = weak.lock();
                       if (expired && alive != nullptr) Abandon();
                     });
    Finish(rpc::ToGrpcStatus(status_));
  }

  void Abandon() {
    absl::MutexLock lock(&mutex_);
    if (call_ != nullptr) call_->TryCancel();
  }

  absl::Mutex mutex_;
  grpc::CallbackServerContext* call_ ABSL_GUARDED_BY(mutex_);  // Null once it is done.
  ModelInferResponse* const response_;
  std::shared_ptr<InferCall> self_;
  CancellationToken token_;
  rpc::CallObserver observer_;
  grpc::Alarm stall_timer_;
  absl::Status status_;
};

}  // namespace

grpc::ServerUnaryReactor* StartModelInfer(const InferContext& context,
                                          grpc::CallbackServerContext* call,
                                          const ModelInferRequest* request,
                                          ModelInferResponse* response) {
  return InferCall::Start(context, call, request, response);
}

}  // namespace ess::inference
