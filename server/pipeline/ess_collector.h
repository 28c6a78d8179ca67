// The sink between a model and the receiver: computes the ESS of each operator at once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_engine.h"
#include "server/models/sequence_model.h"
#include "server/operators/operator_sink.h"
#include "server/pipeline/profile_job.h"
#include "server/pipeline/profile_pipeline.h"
#include "server/pipeline/reduction.h"
#include "server/pipeline/stage_times.h"
#include "server/pipeline/utilization.h"

namespace ess {

// For one run of one job; not thread-safe. All arguments outlive it.
class EssCollector : public operators::OperatorSink {
 public:
  EssCollector(const ProfileJob& job, const ProfilePlan& plan,
               const models::ModelDescription& model, const EssEngine& engine,
               const CancellationToken& cancellation, ProfileReceiver& receiver, StageTimes& stages,
               Utilization& utilization);

  bool Wants(int64_t mixer) const override;
  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override;
  absl::Status Yield(absl::FunctionRef<void()> release) override;

  // Per planned layer; complete when the forward pass has ended.
  const std::vector<LayerRecord>& records() const { return records_; }

  // Whether the engine found a NaN or an infinity in an operator.
  bool saw_nonfinite() const { return saw_nonfinite_; }

 private:
  // Sends a piece as it is, or what its reduction makes of it.
  absl::Status Reduce(const EssPiece& piece);
  // Adds the heads of a group, and sends their mean when it was the last group of its operator.
  absl::Status GatherHeads(const EssPiece& piece);
  absl::Status Send(const EssPiece& piece);

  const ProfileJob& job_;
  const ProfilePlan& plan_;
  const models::ModelDescription& model_;
  const EssEngine& engine_;
  const CancellationToken& cancellation_;
  ProfileReceiver& receiver_;
  StageTimes& stages_;
  Utilization& utilization_;
  std::vector<int64_t> layer_of_mixer_;  // Ordinal in the plan, or -1.
  std::vector<LayerRecord> records_;
  MeanOverHeads mean_over_heads_;  // Of the operator that is coming in.
  bool saw_nonfinite_ = false;
};

}  // namespace ess
