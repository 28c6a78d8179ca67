// One request for inference, from its message to its answers: what ModelInfer and ModelStreamInfer
// have in common.
#pragma once

#include <grpcpp/alarm.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/admission/byte_budget.h"
#include "server/inference/ess_tensor.h"
#include "server/inference/infer_request.h"
#include "server/inference/inference_statistics.h"
#include "server/inference/protocol.h"
#include "server/pipeline/profile_pipeline.h"
#include "server/rpc/call_services.h"
#include "server/rpc/queued_work.h"
#include "server/rpc/request_observer.h"

namespace ess::inference {

// What requests need; everything outlives them.
struct InferContext {
  const ProfilePipeline& pipeline;
  admission::RequestQueue& queue;
  const residency::ModelCatalogue& catalogue;
  const residency::ModelResidency& residency;
  rpc::CallServices services;
  InferenceStatistics& statistics;
  admission::ByteBudget& answer_budget;  // Of the answers of all requests.
  rpc::RequestLimits limits;
  int64_t max_answer_bytes = 0;
  absl::Duration longest_stall;
  std::string server_version;
};

// The label of the metrics: a name that is served, or "".
std::string ServedName(const InferContext& context, const std::string& model);

class InferWork : public rpc::QueuedWork, private ProfileReceiver {
 public:
  ~InferWork() override = default;

 protected:
  // How many answers there are: one, or one for each layer.
  enum class Answers { kOne, kByLayer };

  // `cancellation` outlives the work.
  InferWork(const InferContext& context, const CancellationToken& cancellation,
            const ModelInferRequest& request, Answers answers);

  // Queues the request, or ends the work. `request_id`: ours.
  void Begin(const ModelInferRequest& request, const std::string& request_id,
             const std::string& caller);

  // Takes one answer; on a queue thread. An error stops the work.
  virtual absl::Status OnAnswer(ModelInferResponse answer, bool final) = 0;
  // What is recorded of the request.
  virtual void SetFacts(nlohmann::ordered_json facts) = 0;
  // Instead of QueuedWork::OnEnded: once, and last.
  virtual void OnFinished(const absl::Status& status) = 0;

  // The caller's; comes back as it is.
  const std::string& id() const { return id_; }
  const std::string& model_name() const { return model_name_; }
  const InferContext& context() const { return context_; }

 private:
  absl::StatusOr<InferRequest> Decode(const ModelInferRequest& request) const;
  void OnModelReady(const absl::Status& status);
  void StartTimer(absl::Duration longest_wait);

  absl::Status Run() final;
  void OnEnded(const absl::Status& status) final;
  // In the words of this service.
  absl::Status Translated(const absl::Status& status) const;

  absl::Status OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                      const std::vector<std::vector<std::string>>& token_texts) final;
  absl::Status OnEss(const EssPiece& piece) final;
  absl::Status OnSummary(const ProfileSummary& summary) final;

  bool Wants(const char* output) const;
  int64_t LayersOfAnAnswer() const;
  absl::Status ReserveAnswer();
  void NewTensor(int64_t first_layer);
  absl::Status Deliver(bool final);
  ModelInferResponse MakeAnswer(bool final);

  const InferContext& context_;
  const std::string model_name_;
  const std::string id_;
  const Answers answers_;
  const absl::Time arrival_;
  InferRequest request_;
  bool small_ = false;
  std::unique_ptr<grpc::Alarm> timer_;  // Of the wait in the queue.

  // While the pipeline runs.
  const ProfilePlan* plan_ = nullptr;
  residency::ModelStatus model_;
  std::vector<int64_t> heads_;
  std::optional<EssTensor> tensor_;
  // Until the answers are gone: the work lives as long as its call.
  admission::ByteBudget::Reservation reservation_;
};

}  // namespace ess::inference
