// What the configs of the gated decoders have in common.
#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

// Head counts and sizes that fit together.
absl::Status ReadHeads(const ConfigReader& config, const GatedDecoderDefaults& defaults,
                       GatedDecoderConfig& decoder) {
  ESS_ASSIGN_OR_RETURN(decoder.hidden_size, config.Size("hidden_size", defaults.hidden_size));
  ESS_ASSIGN_OR_RETURN(decoder.head_count, config.Size("num_attention_heads", defaults.head_count));
  const int64_t shared =
      defaults.key_value_head_count > 0 ? defaults.key_value_head_count : decoder.head_count;
  ESS_ASSIGN_OR_RETURN(decoder.key_value_head_count, config.Size("num_key_value_heads", shared));
  if (!config.Has("head_dim") && defaults.head_dim == 0) {
    ESS_RETURN_IF_ERROR(config.CheckMultiple("hidden_size", decoder.hidden_size,
                                             "num_attention_heads", decoder.head_count));
  }
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_attention_heads", decoder.head_count,
                                           "num_key_value_heads", decoder.key_value_head_count));
  const int64_t head_dim = defaults.head_dim > 0
                               ? defaults.head_dim
                               : std::max<int64_t>(decoder.hidden_size / decoder.head_count, 1);
  ESS_ASSIGN_OR_RETURN(decoder.head_dim, config.Size("head_dim", head_dim));
  if (decoder.head_dim > kMaxConfigSize / decoder.head_count) {
    return config.Unsupported(
        "head_dim", fmt::format("num_attention_heads * head_dim up to {}", kMaxConfigSize));
  }
  decoder.attention_scale = 1 / std::sqrt(static_cast<double>(decoder.head_dim));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GatedDecoderConfig> ReadGatedDecoder(const ConfigReader& config,
                                                    const GatedDecoderDefaults& defaults) {
  GatedDecoderConfig decoder;
  ESS_RETURN_IF_ERROR(ReadHeads(config, defaults, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.vocabulary_size,
                       config.Size("vocab_size", defaults.vocabulary_size));
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size,
                       config.Size("intermediate_size", defaults.intermediate_size));
  ESS_ASSIGN_OR_RETURN(decoder.layer_count,
                       config.Size("num_hidden_layers", defaults.layer_count, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(decoder.max_positions,
                       config.Size("max_position_embeddings", defaults.max_positions));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon,
                       config.Number("rms_norm_eps", defaults.norm_epsilon, 0, 1));
  ESS_ASSIGN_OR_RETURN(
      const std::string activation,
      config.Choice(defaults.activation_key, std::string(defaults.activation), ActivationNames()));
  decoder.activation = FindActivation(activation);
  decoder.windows = FullAttention(decoder.layer_count);
  return decoder;
}

absl::Status ReadAttentionBias(const ConfigReader& config, GatedDecoderConfig& decoder) {
  ESS_ASSIGN_OR_RETURN(decoder.query_key_value_bias, config.Bool("attention_bias", false));
  decoder.attention_output_bias = decoder.query_key_value_bias;
  return absl::OkStatus();
}

absl::Status ReadBiases(const ConfigReader& config, GatedDecoderConfig& decoder) {
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.feed_forward_bias, config.Bool("mlp_bias", false));
  return absl::OkStatus();
}

absl::StatusOr<InitialWeights> GatedInitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(config, {.padded_embedding = "embed_tokens"});
}

GroupedQueryConfig HeadsOf(const GatedDecoderConfig& config) {
  return {.hidden_size = config.hidden_size,
          .head_count = config.head_count,
          .key_value_head_count = config.key_value_head_count,
          .head_dim = config.head_dim,
          .bias = config.query_key_value_bias,
          .fused = config.fused_projections,
          .query_key_norm = config.query_key_norm,
          .norm_epsilon = config.norm_epsilon,
          .norm_kind = config.norm_kind,
          .scale = config.attention_scale,
          .soft_cap = config.attention_soft_cap};
}

absl::StatusOr<std::vector<int64_t>> ReadLayerWindows(
    const ConfigReader& config, int64_t layer_count, int64_t window,
    absl::FunctionRef<bool(int64_t layer)> slides) {
  std::vector<int64_t> windows = FullAttention(layer_count);
  if (config.Has("layer_types")) {
    ESS_ASSIGN_OR_RETURN(
        const std::vector<std::string> types,
        config.Choices("layer_types", layer_count, {"full_attention", "sliding_attention"}));
    for (size_t layer = 0; layer < types.size(); ++layer) {
      if (types[layer] == "sliding_attention") windows[layer] = window;
    }
    return windows;
  }
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    if (slides(layer)) windows[static_cast<size_t>(layer)] = window;
  }
  return windows;
}

}  // namespace ess::models
