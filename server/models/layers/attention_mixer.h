// Attention as the mixer of a layer in a stack that has other mixers too.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/models/layers/grouped_query_attention.h"
#include "server/models/layers/rotary_scaling.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct AttentionMixerConfig {
  GroupedQueryConfig heads;
  std::string_view output = "o_proj";
  bool output_bias = false;
  // Angles of its own, in place of the model's.
  std::optional<RotaryScaling> rotary;
};

// Takes the heads' projections and "MODULEo_proj". Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeAttentionMixer(
    TensorSource& tensors, const std::string& module, const AttentionMixerConfig& config);

}  // namespace ess::models
