#include "server/models/model_description.h"

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

std::vector<Mixer> AttentionMixers(int64_t layer_count, int64_t head_count, int64_t head_dim) {
  std::vector<Mixer> mixers;
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    mixers.push_back({.name = MixerName(layer),
                      .layer_index = layer,
                      .operator_class = "DenseOperator",
                      .head_count = head_count,
                      .channels = {head_dim},
                      .state_size = operators::StateSize::Growing()});
  }
  return mixers;
}

}  // namespace ess::models
