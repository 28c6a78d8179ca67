#include "server/pipeline/ess_collector.h"

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/operators/sequence_operator.h"

namespace ess {

EssCollector::EssCollector(const ProfileJob& job, const ProfilePlan& plan,
                           const models::ModelDescription& model, const EssEngine& engine,
                           const CancellationToken& cancellation, ProfileReceiver& receiver,
                           StageTimes& stages, Utilization& utilization)
    : job_(job),
      plan_(plan),
      model_(model),
      engine_(engine),
      cancellation_(cancellation),
      receiver_(receiver),
      stages_(stages),
      utilization_(utilization),
      layer_of_mixer_(model.mixers.size(), -1) {
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    layer_of_mixer_[plan.layers[l].mixer] = static_cast<int64_t>(l);
    records_.push_back(
        LayerRecord::Empty(job.measures.size(), plan.lengths.size() * plan.layers[l].heads.size()));
  }
}

bool EssCollector::Wants(int64_t mixer) const {
  const int64_t layer = layer_of_mixer_[mixer];
  return layer >= 0 && receiver_.Wants(layer);
}

absl::Status EssCollector::Accept(const operators::OperatorKey& key,
                                  const operators::SequenceOperator& op) {
  if (!Wants(key.mixer)) return absl::OkStatus();
  const int64_t layer = layer_of_mixer_[key.mixer];
  // The selected heads that this group holds: a run of the ascending list.
  const std::vector<int64_t>& heads = plan_.layers[layer].heads;
  const auto begin = std::lower_bound(heads.begin(), heads.end(), key.first_head);
  const auto end = std::lower_bound(begin, heads.end(), key.first_head + op.head_count());
  if (begin == end) return absl::OkStatus();
  std::vector<int64_t> group(begin, end);
  for (int64_t& head : group) head -= key.first_head;

  absl::StatusOr<OperatorEss> ess;
  {
    StageTimer timer(stages_, "ess");
    ess = engine_.Compute(op, group, plan_.positions[key.prompt], job_.measures, job_.options,
                          cancellation_);
  }
  saw_nonfinite_ |= ess.status().code() == absl::StatusCode::kInternal;
  ESS_RETURN_IF_ERROR(ess.status());
  const EssPiece piece{.layer = layer,
                       .prompt = key.prompt,
                       .first_head = begin - heads.begin(),
                       .head_count = static_cast<int64_t>(group.size()),
                       .ess = *ess};
  records_[layer].Add(job_.measures, *ess, key.prompt * heads.size() + piece.first_head);
  utilization_.Add(piece);
  ESS_RETURN_IF_ERROR(Reduce(piece));
  const bool last = key.prompt + 1 == std::ssize(plan_.lengths) && end == heads.end();
  if (!last) return absl::OkStatus();
  StageTimer timer(stages_, "send");
  return receiver_.OnLayer(layer, records_[layer]);
}

absl::Status EssCollector::Reduce(const EssPiece& piece) {
  switch (job_.reduction) {
    case Reduction::kNone:
      return Send(piece);
    case Reduction::kPositions: {
      const OperatorEss means =
          MeanOverPositions(piece.ess, job_.measures, plan_.positions[piece.prompt]);
      return Send({piece.layer, piece.prompt, piece.first_head, piece.head_count, means});
    }
    case Reduction::kHeads:
      return GatherHeads(piece);
  }
  return absl::OkStatus();
}

absl::Status EssCollector::GatherHeads(const EssPiece& piece) {
  const PlannedLayer& layer = plan_.layers[piece.layer];
  std::vector<double> weights;
  for (int64_t h = 0; h < piece.head_count; ++h) {
    weights.push_back(static_cast<double>(
        ChannelsOf(model_.mixers[layer.mixer], layer.heads[piece.first_head + h])));
  }
  mean_over_heads_.Add(piece.ess, weights);
  const int64_t head_count = static_cast<int64_t>(layer.heads.size());
  if (piece.first_head + piece.head_count < head_count) return absl::OkStatus();
  return Send({piece.layer, piece.prompt, 0, head_count, mean_over_heads_.Take()});
}

absl::Status EssCollector::Yield(absl::FunctionRef<void()> release) {
  StageTimer timer(stages_, "send");
  return receiver_.Yield(release);
}

absl::Status EssCollector::Send(const EssPiece& piece) {
  StageTimer timer(stages_, "send");
  return receiver_.OnEss(piece);
}

}  // namespace ess
