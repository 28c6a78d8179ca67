#include "server/pipeline/profile_estimate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "server/ess/ess_estimate.h"
#include "server/models/layers/attention.h"

namespace ess {
namespace {

// The forward pass computes in float32, twice as fast as float64.
constexpr double kForwardSpeed = 2;
// Hidden states of a prompt that exist at once, beside the residual stream of all prompts: norms,
// queries, keys, values, the mixed values, and the feed-forward layer, in multiples of the hidden
// size.
constexpr int64_t kHiddenCopies = 16;
constexpr int64_t kAnswerBytes = 3 << 20;  // Waiting for the reader, and one in the making.

// Mixers with the same costs, and the heads of them that are selected.
struct MixerKind {
  std::string operator_class;
  operators::StateSize state_size;
  int64_t heads = 0;       // Selected, of all its layers together.
  int64_t most_heads = 0;  // Of one layer.
};

std::vector<MixerKind> KindsOf(const ProfilePlan& plan, const models::ModelDescription& model) {
  std::vector<MixerKind> kinds;
  for (const PlannedLayer& layer : plan.layers) {
    const models::Mixer& mixer = model.mixers[layer.mixer];
    auto kind = std::find_if(kinds.begin(), kinds.end(), [&mixer](const MixerKind& known) {
      return known.operator_class == mixer.operator_class && known.state_size == mixer.state_size;
    });
    if (kind == kinds.end()) {
      kind = kinds.insert(kinds.end(), {mixer.operator_class, mixer.state_size});
    }
    const int64_t heads = std::ssize(layer.heads);
    kind->heads += heads;
    kind->most_heads = std::max(kind->most_heads, heads);
  }
  return kinds;
}

// Floating point operations of the pass, which ends after the last selected mixer: two for each
// weight and token, and 4 L^2 D for the maps of a layer.
double ForwardFlops(const ProfilePlan& plan, const models::ModelDescription& model) {
  const double embedding = static_cast<double>(model.vocabulary_size * model.hidden_size);
  const double weights = std::max(static_cast<double>(model.parameters) - embedding, 0.0);
  double per_prompt = 0;
  for (const int64_t positions : plan.lengths) {
    const double length = static_cast<double>(positions);
    per_prompt += 2 * weights * length + 4 * length * length *
                                             static_cast<double>(model.hidden_size) *
                                             static_cast<double>(model.mixers.size());
  }
  const double share =
      static_cast<double>(plan.layers.back().mixer + 1) / static_cast<double>(model.mixers.size());
  return share * per_prompt;
}

}  // namespace

ProfileEstimate EstimateProfile(const ProfileJob& job, const ProfilePlan& plan,
                                const models::ModelDescription& model, int threads) {
  ProfileEstimate estimate;
  std::map<std::pair<std::string, int64_t>, RouteSet> routes;
  double ess_flops = 0;
  int64_t longest = 0;
  int64_t most_heads = 0;
  int64_t scratch = 0;
  // A layer's heads run side by side: the last ones leave threads idle.
  for (const MixerKind& kind : KindsOf(plan, model)) {
    most_heads = std::max(most_heads, kind.most_heads);
    const double rounds = std::ceil(static_cast<double>(kind.most_heads) / threads);
    const double busy = static_cast<double>(kind.most_heads) / rounds;
    for (size_t p = 0; p < plan.lengths.size(); ++p) {
      const OperatorShape shape{.class_name = kind.operator_class,
                                .head_count = kind.most_heads,
                                .length = plan.lengths[p],
                                .state_size = kind.state_size};
      const EssEstimate head = EstimateEss(shape, plan.positions[p], job.measures, job.options);
      ess_flops += head.flops * static_cast<double>(kind.heads) / busy;
      scratch = std::max(scratch, head.scratch_bytes);
      longest = std::max(longest, shape.length);
      for (size_t m = 0; m < head.routes.size(); ++m) {
        routes[{kind.operator_class, static_cast<int64_t>(m)}].Add(head.routes[m]);
      }
    }
  }
  for (const auto& [key, route] : routes) {
    estimate.routes.push_back(
        {.measure = key.second, .operator_class = key.first, .route = route.Name()});
  }
  const double speed = FloatSpeed();
  estimate.ess_seconds = ess_flops / speed;
  estimate.forward_seconds = ForwardFlops(plan, model) / (kForwardSpeed * speed * threads);

  int64_t values = 0;
  for (const Measure& measure : job.measures) values += measure.ValuesPerPosition();
  const int64_t map_bytes =
      std::min(most_heads * longest * longest * static_cast<int64_t>(sizeof(float)),
               std::max(models::kMaxMapBytes, longest * longest * int64_t{sizeof(float)}));
  const int64_t hidden_bytes = model.hidden_size * static_cast<int64_t>(sizeof(float));
  estimate.peak_bytes =
      std::min<int64_t>(threads, most_heads) * scratch + 2 * map_bytes +
      hidden_bytes * (plan.PositionCount() + kHiddenCopies * longest) +
      2 * most_heads * std::ssize(plan.all_positions) * values * ValueBytes(job.options) +
      kAnswerBytes;
  return estimate;
}

}  // namespace ess
