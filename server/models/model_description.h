// Parts of a ModelDescription that architectures fill alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// A description with the weights' totals; the caller fills in sizes and mixers.
ModelDescription DescribeModel(const std::string& architecture, const std::string& device,
                               const TensorTotals& totals);

// One mixer of full attention in each layer, of `head_count` heads with `head_dim` channels each.
std::vector<Mixer> AttentionMixers(int64_t layer_count, int64_t head_count, int64_t head_dim);

}  // namespace ess::models
