// Softmax attention in listed layers of flash-linear-attention's models: the config key `attn`.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/attention_mixer.h"

namespace ess::models {

// By layer; nullopt where the architecture's own mixer is. `attn` is null, an object, or a list of
// objects {layers, num_heads, num_kv_heads, qkv_bias, window_size, rope_theta}.
// Errors: those of ConfigReader; kDataLoss  heads that do not fit, a layer listed twice.
absl::StatusOr<std::vector<std::optional<AttentionMixerConfig>>> ReadFlaAttention(
    const ConfigReader& config, int64_t layer_count, int64_t hidden_size);

}  // namespace ess::models
