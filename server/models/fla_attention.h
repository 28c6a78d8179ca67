// Softmax attention in listed layers of flash-linear-attention's models: the config key `attn`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/grouped_query_attention.h"
#include "server/models/layers/rotary_scaling.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct FlaAttentionConfig {
  GroupedQueryConfig heads;
  RotaryScaling rotary;
};

// By layer; nullopt where the architecture's own mixer is. `attn` is null, an object, or a list of
// objects {layers, num_heads, num_kv_heads, qkv_bias, window_size, rope_theta}.
// Errors: those of ConfigReader; kDataLoss  heads that do not fit, a layer listed twice.
absl::StatusOr<std::vector<std::optional<FlaAttentionConfig>>> ReadFlaAttention(
    const ConfigReader& config, int64_t layer_count, int64_t hidden_size);

// Takes "PREFIX{q,k,v,o}_proj". Errors: those of TensorSource::Take.
absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeFlaAttention(TensorSource& tensors,
                                                                const FlaAttentionConfig& config,
                                                                const std::string& prefix);

}  // namespace ess::models
