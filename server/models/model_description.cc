#include "server/models/model_description.h"

#include <utility>

namespace ess::models {

ModelDescription DescribeModel(const std::string& architecture, const std::string& device,
                               const TensorTotals& totals) {
  ModelDescription description;
  description.architecture = architecture;
  description.device = device;
  description.dtype = totals.dtype;
  description.weight_bytes = totals.bytes;
  description.parameters = totals.parameters;
  return description;
}

std::vector<int64_t> FullAttention(int64_t layer_count) {
  return std::vector<int64_t>(static_cast<size_t>(layer_count), 0);
}

std::vector<Mixer> AttentionMixers(const std::vector<int64_t>& windows, int64_t head_count,
                                   int64_t head_dim) {
  std::vector<Mixer> mixers;
  for (const int64_t window : windows) {
    const int64_t layer = static_cast<int64_t>(mixers.size());
    mixers.push_back({.name = MixerName(layer),
                      .layer_index = layer,
                      .operator_class = window > 0 ? "BandedOperator" : "DenseOperator",
                      .head_count = head_count,
                      .channels = {head_dim},
                      .state_size = window > 0 ? operators::StateSize::GrowingUpTo(window - 1)
                                               : operators::StateSize::Growing()});
  }
  return mixers;
}

Mixer RecurrenceMixer(std::string operator_class, int64_t head_count, int64_t channels,
                      int64_t states) {
  return {.name = {},
          .operator_class = std::move(operator_class),
          .head_count = head_count,
          .channels = {channels},
          .state_size = operators::StateSize::Constant(states)};
}

}  // namespace ess::models
