#include "server/pipeline/profile_pipeline.h"

#include <utility>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/status_macros.h"
#include "server/models/prompt_work.h"
#include "server/pipeline/ess_collector.h"
#include "server/pipeline/profile_estimate.h"
#include "server/pipeline/utilization.h"
#include "server/telemetry/process_metrics.h"

namespace ess {
namespace {

// Of a small job, so that none of them keeps its thread for long.
constexpr int64_t kMostSmallTokens = 1024;

absl::StatusOr<std::vector<std::vector<int64_t>>> Tokenize(const ProfileJob& job,
                                                           const residency::ModelLease& lease,
                                                           const CancellationToken& cancellation) {
  std::vector<std::vector<int64_t>> token_ids;
  if (job.gaussian) return std::vector<std::vector<int64_t>>(job.prompts.size());
  for (const PromptInput& prompt : job.prompts) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_FAULT_POINT("tokenize");
    if (const auto* ids = std::get_if<std::vector<int64_t>>(&prompt.content)) {
      token_ids.push_back(*ids);
      continue;
    }
    if (lease.tokenizer() == nullptr) {
      return absl::FailedPreconditionError(
          fmt::format("prompts: prompt '{}' is text and model '{}' has no tokenizer.json; send "
                      "token ids",
                      prompt.id, lease.name()));
    }
    absl::StatusOr<std::vector<int64_t>> ids =
        lease.tokenizer()->Encode(std::get<std::string>(prompt.content), job.add_special_tokens);
    if (!ids.ok()) {
      return absl::Status(ids.status().code(), fmt::format("prompts: prompt '{}': {}", prompt.id,
                                                           std::string(ids.status().message())));
    }
    token_ids.push_back(*std::move(ids));
  }
  return token_ids;
}

absl::StatusOr<std::vector<std::vector<std::string>>> TokenTexts(
    const ProfilePlan& plan, const tokenization::Tokenizer* tokenizer,
    const CancellationToken& cancellation) {
  std::vector<std::vector<std::string>> texts(plan.token_ids.size());
  if (tokenizer == nullptr) return texts;
  for (size_t p = 0; p < texts.size(); ++p) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    texts[p] = tokenizer->TokenTexts(plan.token_ids[p]);
  }
  return texts;
}

}  // namespace

absl::StatusOr<PreparedProfile> ProfilePipeline::Prepare(const ProfileJob& job,
                                                         const CancellationToken& cancellation,
                                                         WaitAside aside,
                                                         StageTimes& stages) const {
  ESS_RETURN_IF_ERROR(cancellation.Check());
  absl::StatusOr<residency::ModelLease> lease = [&] {
    StageTimer timer(stages, "load");
    return residency_.Acquire(job.model, cancellation, aside);
  }();
  ESS_RETURN_IF_ERROR(lease.status());
  return Prepare(job, *std::move(lease), cancellation, stages);
}

absl::StatusOr<PreparedProfile> ProfilePipeline::Prepare(const ProfileJob& job,
                                                         residency::ModelLease lease,
                                                         const CancellationToken& cancellation,
                                                         StageTimes& stages) const {
  StageTimer timer(stages, "tokenize");
  ESS_ASSIGN_OR_RETURN(std::vector<std::vector<int64_t>> token_ids,
                       Tokenize(job, lease, cancellation));
  ESS_ASSIGN_OR_RETURN(
      ProfilePlan plan,
      MakeProfilePlan(job, std::move(token_ids), lease.model().description(), options_.limits));
  residency::ModelStatus model = residency_.Describe(lease);
  ESS_ASSIGN_OR_RETURN(
      std::vector<std::vector<std::string>> texts,
      TokenTexts(plan, job.token_texts ? lease.tokenizer() : nullptr, cancellation));
  return PreparedProfile{std::move(lease), std::move(plan), std::move(model), std::move(texts)};
}

void ProfilePipeline::WhenLeased(
    const ProfileJob& job, std::shared_ptr<const CancellationToken> cancellation,
    std::function<void(absl::StatusOr<residency::ModelLease>)> done) const {
  residency_.WhenReady(job.model, std::move(cancellation), std::move(done));
}

void ProfilePipeline::WhenReady(const ProfileJob& job,
                                std::shared_ptr<const CancellationToken> cancellation,
                                std::function<void(absl::Status)> done) const {
  // The lease goes back at once: requests that wait keep no model from making room for another.
  residency_.WhenReady(job.model, std::move(cancellation),
                       [done = std::move(done)](absl::StatusOr<residency::ModelLease> lease) {
                         const absl::Status status = lease.status();
                         { const auto returned = std::move(lease); }
                         done(status);
                       });
}

bool ProfilePipeline::IsSmall(const ProfileJob& job) const {
  const absl::StatusOr<residency::ModelStatus> model = residency_.Get(job.model);
  if (!model.ok() || model->description == nullptr) return false;
  int64_t tokens = 0;
  for (const PromptInput& prompt : job.prompts) {
    const int64_t length = MostTokens(job, prompt);
    if (!models::RunsOnOneThread(*model->description, length)) return false;
    tokens += length;
  }
  return tokens <= kMostSmallTokens;
}

absl::StatusOr<ProfilePipeline::AdmittedProfile> ProfilePipeline::PrepareWithMemory(
    const ProfileJob& job, const CancellationToken& cancellation, WaitAside aside,
    StageTimes& stages) const {
  constexpr int kMaxAttempts = 3;
  absl::Status gave_way;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ESS_ASSIGN_OR_RETURN(PreparedProfile prepared, Prepare(job, cancellation, aside, stages));
    const int64_t bytes =
        EstimateProfile(job, prepared.plan, prepared.lease.model().description(), threads())
            .peak_bytes;
    StageTimer timer(stages, "load");
    absl::StatusOr<residency::WorkReservation> memory =
        residency_.ReserveWork(prepared.lease, bytes, cancellation, aside);
    if (memory.ok()) return AdmittedProfile{std::move(prepared), *std::move(memory)};
    if (memory.status().code() != absl::StatusCode::kAborted) return memory.status();
    gave_way = memory.status();  // The lease goes back, so that others get on.
  }
  return absl::ResourceExhaustedError(gave_way.message());
}

absl::Status ProfilePipeline::Run(const ProfileJob& job, bool small,
                                  const CancellationToken& cancellation, WaitAside aside,
                                  ProfileReceiver& receiver, StageTimes& stages) const {
  ESS_ASSIGN_OR_RETURN(const AdmittedProfile admitted,
                       PrepareWithMemory(job, cancellation, aside, stages));
  const PreparedProfile& prepared = admitted.prepared;
  const ProfilePlan& plan = prepared.plan;
  const models::ModelDescription& model = prepared.lease.model().description();
  {
    StageTimer timer(stages, "send");
    ESS_RETURN_IF_ERROR(receiver.OnPlan(plan, prepared.model, prepared.token_texts));
  }
  const absl::Time start = absl::Now();

  const double token_count = static_cast<double>(plan.PositionCount());
  metrics_.batch_sequences.Observe({job.model}, static_cast<double>(plan.lengths.size()));
  metrics_.batch_tokens.Observe({job.model}, token_count);
  metrics_.tokens.Increment({job.model}, token_count);

  Utilization utilization(job, plan, model, options_.metrics_measure);
  StageTimes inside;  // "ess" and "send", which happen during the forward pass.
  EssCollector collector(job, plan, model, small ? serial_engine_ : engine_, cancellation, receiver,
                         inside, utilization);
  const models::SequenceModel& runner = prepared.lease.model();
  const absl::Status forward =
      job.gaussian
          ? runner.ForwardGaussian(*job.gaussian, collector, cancellation, /*logits=*/nullptr)
          : runner.Forward(plan.token_ids, collector, cancellation, /*logits=*/nullptr);
  absl::Duration forward_time = absl::Now() - start;
  for (const auto& [stage, seconds] : inside.seconds()) {
    stages.Add(stage, absl::Seconds(seconds));
    forward_time -= absl::Seconds(seconds);
  }
  stages.Add("forward", forward_time);
  if (collector.saw_nonfinite()) metrics_.nonfinite_observations.Increment({job.model});
  ESS_RETURN_IF_ERROR(forward);

  utilization.Observe(metrics_, job.model, options_.max_metrics_layers);
  double position_count = 0;
  for (const auto& positions : plan.positions) {
    position_count += static_cast<double>(positions.size());
  }
  metrics_.profiled_sequences.Increment({job.model}, static_cast<double>(plan.lengths.size()));
  metrics_.profiled_positions.Increment({job.model}, position_count);
  return receiver.OnSummary({.layers = collector.records(),
                             .stage_seconds = stages.seconds(),
                             .peak_host_bytes = telemetry::PeakResidentBytes()});
}

}  // namespace ess
