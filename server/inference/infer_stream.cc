#include "server/inference/infer_stream.h"

#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fmt/format.h"
#include "server/inference/tensor_contract.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/stream_writer.h"

namespace ess::inference {
namespace {

// Parameter of every answer: whether it is the last of its request.
constexpr char kFinalParameter[] = "triton_final_response";

using StreamReactor = grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>;

class InferStream;

// One request of a stream. Holds a share of the stream, which holds one of it until it has ended.
class StreamRequest : public InferWork {
 public:
  StreamRequest(std::shared_ptr<InferStream> stream, const ModelInferRequest& request);

  void Begin(const ModelInferRequest& request);

 private:
  absl::Status OnAnswer(ModelInferResponse answer, bool final) override;
  void SetFacts(nlohmann::ordered_json facts) override { observer_.SetFacts(std::move(facts)); }
  void OnFinished(const absl::Status& status) override;

  const std::shared_ptr<InferStream> stream_;
  rpc::RequestObserver observer_;
};

// The stream. Owns itself until OnDone. It is closed when the caller has sent all requests, or has
// left, and the last request in flight has ended: nothing is sent afterwards.
class InferStream : public StreamReactor, public std::enable_shared_from_this<InferStream> {
 public:
  InferStream(const InferContext& context, grpc::CallbackServerContext* call)
      : context_(context),
        token_(rpc::DeadlineOf(context.services, *call)),
        observer_(context.services, *call, token_, "ModelStreamInfer", /*served_model=*/"",
                  /*request_bytes=*/0),
        writer_(*this, *call, observer_, token_, context.longest_stall) {
    const auto header = call->client_metadata().find(kGrpcErrorMetadata);
    ends_on_error_ = header != call->client_metadata().end() && header->second == "true";
  }

  static InferStream* Start(const InferContext& context, grpc::CallbackServerContext* call) {
    const auto made = std::make_shared<InferStream>(context, call);
    made->self_ = made;
    if (const absl::Status& admitted = made->observer_.admitted(); !admitted.ok()) {
      made->writer_.Close(admitted);
    } else {
      made->Idle();
      made->StartRead(&made->message_);
    }
    return made.get();
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override {
    if (!ok) token_.Cancel();
    writer_.OnWriteDone(ok);
    Advance();  // There may be room to read again.
  }
  void OnCancel() override;
  void OnDone() override {
    observer_.Finish(writer_.status());
    const std::shared_ptr<InferStream> last = std::move(self_);
  }

  const InferContext& context() const { return context_; }
  CancellationToken& token() { return token_; }
  const rpc::RequestObserver::Origin& origin() const { return observer_.origin(); }

  absl::Status Send(ModelInferResponse answer, bool final, rpc::QueuedWork& work);
  // The last of a request. `failed`: what goes with its error.
  void OnRequestEnded(StreamRequest& request, const ModelInferResponse& failed,
                      const absl::Status& status);

 private:
  // A drain does not wait for streams without requests, which may be open for hours.
  void Idle() { context_.services.calls.Closed(token_); }
  void Busy() { context_.services.calls.Opened(token_); }

  // Reads the next message, or closes the stream, when it is time.
  void Advance();
  std::set<std::shared_ptr<StreamRequest>> InFlight() {
    absl::MutexLock lock(&mutex_);
    return in_flight_;
  }

  const InferContext& context_;
  std::shared_ptr<InferStream> self_;
  CancellationToken token_;
  rpc::CallObserver observer_;
  rpc::StreamWriter<StreamReactor, ModelStreamInferResponse> writer_;
  bool ends_on_error_ = false;
  ModelInferRequest message_;  // Being read.

  absl::Mutex mutex_;
  std::set<std::shared_ptr<StreamRequest>> in_flight_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // `message_` is in use.
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> failure_ ABSL_GUARDED_BY(mutex_);  // What the stream ends with.
};

StreamRequest::StreamRequest(std::shared_ptr<InferStream> stream, const ModelInferRequest& request)
    : InferWork(stream->context(), stream->token(), request, Answers::kByLayer),
      stream_(std::move(stream)),
      observer_(stream_->context().services.metrics,
                {.rpc = stream_->origin().rpc,
                 .served_model = ServedName(stream_->context(), request.model_name()),
                 .request_id = rpc::NewRequestId(),
                 .caller = stream_->origin().caller,
                 .trace = stream_->origin().trace}) {}

void StreamRequest::Begin(const ModelInferRequest& request) {
  InferWork::Begin(request, observer_.origin().request_id, observer_.origin().caller);
}

absl::Status StreamRequest::OnAnswer(ModelInferResponse answer, bool final) {
  return stream_->Send(std::move(answer), final, *this);
}

void StreamRequest::OnFinished(const absl::Status& status) {
  observer_.Finish(status, stages());
  ModelInferResponse failed;
  failed.set_model_name(model_name());
  failed.set_model_version(kVersion);
  failed.set_id(id());
  (*failed.mutable_parameters())["request_id"].set_string_param(observer_.origin().request_id);
  stream_->OnRequestEnded(*this, failed, status);
}

void InferStream::OnReadDone(bool ok) {
  std::shared_ptr<StreamRequest> request;
  {
    absl::MutexLock lock(&mutex_);
    all_read_ |= !ok;
    if (ok && !failure_) {
      if (in_flight_.empty()) Busy();
      request = std::make_shared<StreamRequest>(shared_from_this(), message_);
      in_flight_.insert(request);
    }
  }
  if (request != nullptr) {
    observer_.CountReceived(static_cast<int64_t>(message_.ByteSizeLong()));
    request->Begin(message_);
  }
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
  }
  Advance();
}

void InferStream::Advance() {
  bool read = false;
  bool close = false;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    const bool over = all_read_ || failure_ || !token_.Check().ok();
    read = !over && !reading_ && in_flight_.size() < kMaxRequestsInFlight && writer_.IsAmple();
    reading_ |= read;
    close = over && in_flight_.empty() && !closed_;
    closed_ |= close;
    status = failure_ ? *failure_ : token_.Check();
  }
  if (read) StartRead(&message_);
  if (close) writer_.Close(context_.services.calls.StatusOf(status));
}

void InferStream::OnCancel() {
  const absl::Status reason = context_.services.calls.Cancel(token_);
  for (const std::shared_ptr<StreamRequest>& request : InFlight()) request->Cancelled(reason);
  writer_.Break();
}

absl::Status InferStream::Send(ModelInferResponse answer, bool final, rpc::QueuedWork& work) {
  ModelStreamInferResponse message;
  (*answer.mutable_parameters())[kFinalParameter].set_bool_param(final);
  *message.mutable_infer_response() = std::move(answer);
  const bool large = message.ByteSizeLong() >= rpc::kEnoughPendingBytes;
  ESS_RETURN_IF_ERROR(writer_.Send(std::move(message), work));
  // It keeps its room in the budget until it is taken, and a reader who stalls is cut off.
  return large ? writer_.AwaitReader([] {}, work) : absl::OkStatus();
}

void InferStream::OnRequestEnded(StreamRequest& request, const ModelInferResponse& failed,
                                 const absl::Status& status) {
  if (!status.ok() && !ends_on_error_) {
    ModelStreamInferResponse message;
    message.set_error_message(fmt::format("[{}] {}", absl::StatusCodeToString(status.code()),
                                          std::string(status.message())));
    *message.mutable_infer_response() = failed;
    (*message.mutable_infer_response()->mutable_parameters())[kFinalParameter].set_bool_param(true);
    writer_.SendNow(std::move(message));
  }
  std::set<std::shared_ptr<StreamRequest>> others;
  {
    absl::MutexLock lock(&mutex_);
    in_flight_.erase(std::static_pointer_cast<StreamRequest>(request.shared_from_this()));
    if (!status.ok() && ends_on_error_ && !failure_) {
      failure_ = status;
      others = in_flight_;
      token_.Cancel();
    }
    if (in_flight_.empty() && !all_read_ && !failure_) Idle();
  }
  for (const std::shared_ptr<StreamRequest>& other : others) {
    other->DisownCancel();
    other->Cancelled(absl::CancelledError("another request of the stream failed"));
  }
  Advance();
}

}  // namespace

StreamReactor* StartModelStreamInfer(const InferContext& context,
                                     grpc::CallbackServerContext* call) {
  return InferStream::Start(context, call);
}

}  // namespace ess::inference
