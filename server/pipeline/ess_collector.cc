#include "server/pipeline/ess_collector.h"

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

// "inertia_tree" + "reference_svd" -> "inertia_tree+reference_svd"; a route already there stays.
void JoinRoute(const std::string& route, std::string& routes) {
  if (routes.empty()) {
    routes = route;
  } else if (("+" + routes + "+").find("+" + route + "+") == std::string::npos) {
    routes += "+" + route;
  }
}

}  // namespace

EssCollector::EssCollector(const ProfileJob& job, const ProfilePlan& plan,
                           const models::ModelDescription& model, const EssEngine& engine,
                           const CancellationToken& cancellation, ProfileReceiver& receiver,
                           StageTimes& stages, Utilization& utilization)
    : job_(job),
      plan_(plan),
      engine_(engine),
      cancellation_(cancellation),
      receiver_(receiver),
      stages_(stages),
      utilization_(utilization),
      layer_of_mixer_(model.mixers.size(), -1) {
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    layer_of_mixer_[plan.layers[l].mixer] = static_cast<int64_t>(l);
    records_.push_back(
        {.routes = std::vector<std::string>(job.measures.size()),
         .below_noise_floor = std::vector<int64_t>(job.measures.size()),
         .noise_floors = std::vector<float>(plan.token_ids.size() * plan.layers[l].heads.size())});
  }
}

bool EssCollector::Wants(int64_t mixer) const { return layer_of_mixer_[mixer] >= 0; }

absl::Status EssCollector::Accept(const operators::OperatorKey& key,
                                  const operators::SequenceOperator& op) {
  const int64_t layer = layer_of_mixer_[key.mixer];
  if (layer < 0) return absl::OkStatus();
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
    ess = engine_.Compute(op, group, plan_.positions[key.prompt], job_.measures, {}, cancellation_);
  }
  saw_nonfinite_ |= ess.status().code() == absl::StatusCode::kInternal;
  ESS_RETURN_IF_ERROR(ess.status());
  const EssPiece piece{.layer = layer,
                       .prompt = key.prompt,
                       .first_head = begin - heads.begin(),
                       .head_count = static_cast<int64_t>(group.size()),
                       .ess = *ess};
  Record(piece);
  utilization_.Add(piece);
  StageTimer timer(stages_, "send");
  return receiver_.OnEss(piece);
}

void EssCollector::Record(const EssPiece& piece) {
  LayerRecord& record = records_[piece.layer];
  const size_t first_floor =
      piece.prompt * plan_.layers[piece.layer].heads.size() + piece.first_head;
  for (int64_t h = 0; h < piece.head_count; ++h) {
    record.noise_floors[first_floor + h] = static_cast<float>(piece.ess.noise_floors[h]);
  }
  for (size_t m = 0; m < job_.measures.size(); ++m) {
    JoinRoute(piece.ess.routes[m], record.routes[m]);
    if (job_.measures[m].kind != Measure::Kind::kTolerance) continue;
    record.below_noise_floor[m] +=
        std::count_if(piece.ess.noise_floors.begin(), piece.ess.noise_floors.end(),
                      [&](double floor) { return job_.measures[m].value < floor; });
  }
}

}  // namespace ess
