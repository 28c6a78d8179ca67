// The way of a profile: lease the model, tokenize, plan, run, and hand on what comes out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/base/wait_aside.h"
#include "server/ess/ess_engine.h"
#include "server/pipeline/profile_job.h"
#include "server/pipeline/profile_plan.h"
#include "server/pipeline/stage_times.h"
#include "server/residency/model_residency.h"
#include "server/telemetry/metrics.h"

namespace ess {

// Receives a profile as it is made, in this order: OnPlan; layer by layer OnEss for each piece,
// then OnLayer; OnSummary. A status that is not OK stops the work.
class ProfileReceiver {
 public:
  virtual ~ProfileReceiver() = default;
  // `token_texts`: per prompt, the text of each token; empty lists without a tokenizer.
  virtual absl::Status OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                              const std::vector<std::vector<std::string>>& token_texts) = 0;
  // Asked after OnPlan: whether the ESS of a layer, an ordinal in the plan, is to be computed.
  virtual bool Wants(int64_t layer) const { return true; }
  virtual absl::Status OnEss(const EssPiece& piece) = 0;
  // All prompts of the layer have come.
  virtual absl::Status OnLayer(int64_t layer, const LayerRecord& record) {
    return absl::OkStatus();
  }
  // Between two OnEss, often, while no operator is in memory: see OperatorSink::Yield.
  virtual absl::Status Yield(absl::FunctionRef<void()> release) { return absl::OkStatus(); }
  virtual absl::Status OnSummary(const ProfileSummary& summary) = 0;
};

// A job that is ready to run, or to be estimated.
struct PreparedProfile {
  residency::ModelLease lease;
  ProfilePlan plan;
  residency::ModelStatus model;
  std::vector<std::vector<std::string>> token_texts;  // As ProfileReceiver::OnPlan takes them.
};

// Thread-safe.
class ProfilePipeline {
 public:
  struct Options {
    ProfileLimits limits;
    Measure metrics_measure;
    int max_metrics_layers = 256;
  };

  // All outlive the pipeline. `serial_engine` has a pool of one thread.
  ProfilePipeline(residency::ModelResidency& residency, const EssEngine& engine,
                  const EssEngine& serial_engine, telemetry::Metrics& metrics,
                  const Options& options)
      : residency_(residency),
        engine_(engine),
        serial_engine_(serial_engine),
        metrics_(metrics),
        options_(options) {}

  // Of the engine.
  int threads() const { return engine_.threads(); }

  // Leases the model, tokenizes and plans, on the calling thread. Waits aside for the model if it
  // is not in memory. `stages` gains what each stage took, also on failure. Errors: those of
  // ModelResidency::Acquire and of the next.
  absl::StatusOr<PreparedProfile> Prepare(const ProfileJob& job,
                                          const CancellationToken& cancellation, WaitAside aside,
                                          StageTimes& stages) const;

  // The same with a lease of the job's model.
  // Errors: those of Tokenizer::Encode and MakeProfilePlan; kCancelled, kDeadlineExceeded  between
  //         two prompts.
  absl::StatusOr<PreparedProfile> Prepare(const ProfileJob& job, residency::ModelLease lease,
                                          const CancellationToken& cancellation,
                                          StageTimes& stages) const;

  // Calls `done` once, with a lease: see ModelResidency::WhenReady.
  void WhenLeased(const ProfileJob& job, std::shared_ptr<const CancellationToken> cancellation,
                  std::function<void(absl::StatusOr<residency::ModelLease>)> done) const;

  // Calls `done` once: at once when the model is in memory, else when it is, or cannot be. It may
  // be evicted again before the job runs, and is then loaded by Run. See ModelResidency::WhenReady.
  void WhenReady(const ProfileJob& job, std::shared_ptr<const CancellationToken> cancellation,
                 std::function<void(absl::Status)> done) const;

  // Whether a job keeps one thread busy, and no more: see models::RunsOnOneThread. False while the
  // model is not in memory.
  bool IsSmall(const ProfileJob& job) const;

  // Prepares and runs one job on the calling thread; unless it is small, on the engine's threads,
  // too. Waits aside for room in memory for its work.
  // Errors: those of Prepare, ModelResidency::ReserveWork, SequenceModel::Forward,
  //         EssEngine::Compute and the receiver. kResourceExhausted, too, when the room that it
  //         waits for stays taken by others who wait.
  absl::Status Run(const ProfileJob& job, bool small, const CancellationToken& cancellation,
                   WaitAside aside, ProfileReceiver& receiver, StageTimes& stages) const;

 private:
  // A prepared job, and the memory it may use.
  struct AdmittedProfile {
    PreparedProfile prepared;
    residency::WorkReservation memory;
  };
  absl::StatusOr<AdmittedProfile> PrepareWithMemory(const ProfileJob& job,
                                                    const CancellationToken& cancellation,
                                                    WaitAside aside, StageTimes& stages) const;

  residency::ModelResidency& residency_;
  const EssEngine& engine_;
  const EssEngine& serial_engine_;
  telemetry::Metrics& metrics_;
  const Options options_;
};

}  // namespace ess
