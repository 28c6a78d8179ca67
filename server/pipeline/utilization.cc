#include "server/pipeline/utilization.h"

#include <algorithm>

namespace ess {

int64_t ChannelsOf(const models::Mixer& mixer, int64_t head) {
  return mixer.channels.size() == 1 ? mixer.channels.front() : mixer.channels[head];
}

Utilization::Utilization(const ProfileJob& job, const ProfilePlan& plan,
                         const models::ModelDescription& model, const Measure& measure)
    : plan_(plan),
      model_(model),
      sums_(plan.layers.size(), std::vector<Sums>(plan.lengths.size())) {
  const auto found = std::find(job.measures.begin(), job.measures.end(), measure);
  if (found != job.measures.end() && !job.options.horizon) measure_ = found - job.measures.begin();
}

void Utilization::Add(const EssPiece& piece) {
  if (!measure_) return;
  const PlannedLayer& layer = plan_.layers[piece.layer];
  const models::Mixer& mixer = model_.mixers[layer.mixer];
  const std::vector<int64_t>& positions = plan_.positions[piece.prompt];
  const std::vector<float>& values = piece.ess.values[*measure_];
  Sums& sums = sums_[piece.layer][piece.prompt];
  for (int64_t h = 0; h < piece.head_count; ++h) {
    const double channels =
        static_cast<double>(ChannelsOf(mixer, layer.heads[piece.first_head + h]));
    for (size_t p = 0; p < positions.size(); ++p) {
      sums.effective += channels * values[h * positions.size() + p];
      sums.state += channels * static_cast<double>(mixer.state_size.At(positions[p]));
    }
  }
}

void Utilization::Observe(telemetry::Metrics& metrics, const std::string& model_name,
                          int max_layers) const {
  if (!measure_ || static_cast<int>(model_.mixers.size()) > max_layers) return;
  for (size_t l = 0; l < sums_.size(); ++l) {
    const std::array<std::string, 2> labels = {model_name,
                                               model_.mixers[plan_.layers[l].mixer].name};
    for (const Sums& sums : sums_[l]) {
      if (sums.state == 0) continue;  // One token, or position 0 only.
      const double ratio = sums.effective / sums.state;
      metrics.state_utilization.Observe(labels, ratio);
      metrics.effective_state_size_sum.Increment(labels, sums.effective);
      metrics.state_size_sum.Increment(labels, sums.state);
      metrics.observations.Increment(labels);
      metrics.state_saturated.Increment(labels, ratio >= 0.95 ? 1 : 0);
      metrics.state_idle.Increment(labels, ratio <= 0.05 ? 1 : 0);
    }
  }
}

}  // namespace ess
