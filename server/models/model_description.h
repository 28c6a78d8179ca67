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

// Windows of layers that see everything.
std::vector<int64_t> FullAttention(int64_t layer_count);

// One mixer of attention in each layer, of `head_count` heads with `head_dim` channels each.
// `windows`: by layer, how many positions a position sees, itself included; 0: all before it.
std::vector<Mixer> AttentionMixers(const std::vector<int64_t>& windows, int64_t head_count,
                                   int64_t head_dim);

// A mixer whose heads are recurrences with `states` real states and `channels` channels each; the
// caller fills in name and layer.
Mixer RecurrenceMixer(std::string operator_class, int64_t head_count, int64_t channels,
                      int64_t states);

}  // namespace ess::models
