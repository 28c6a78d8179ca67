// The decoder that most open language models vary: pre-norm blocks of grouped-query attention with
// rotary positions, and a gated feed-forward, RMS norms throughout. An architecture reads its
// config into GatedDecoderConfig; what it has of its own is a field here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/status_macros.h"
#include "server/models/architecture.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/grouped_query_attention.h"
#include "server/models/layers/latent_attention.h"
#include "server/models/layers/mixture_of_experts.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/rotary_scaling.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct GatedDecoderConfig {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // I
  int64_t layer_count = 0;
  int64_t head_count = 0;            // H
  int64_t key_value_head_count = 0;  // G
  int64_t head_dim = 0;              // d
  int64_t max_positions = 0;
  double norm_epsilon = 0;
  RmsNormKind norm_kind = RmsNormKind::kLlama;
  ActivationInPlace activation = nullptr;

  bool query_key_value_bias = false;
  bool attention_output_bias = false;
  bool feed_forward_bias = false;
  bool query_key_norm = false;     // An RMS norm of every query and key head before it rotates.
  bool output_norms = false;       // Also of what attention and feed-forward add (Gemma 2 and 3).
  bool fused_projections = false;  // qkv_proj and gate_up_proj in the checkpoint (Phi-3).

  std::optional<LatentAttentionConfig> latent;  // Instead of grouped queries (DeepSeek).
  std::optional<ExpertsConfig> experts;
  // Further layers of the checkpoint, which predict tokens after the next one.
  int64_t unused_layer_count = 0;

  double attention_scale = 0;
  double attention_soft_cap = 0;  // 0: none.
  double logit_soft_cap = 0;      // 0: none.
  double embedding_scale = 1;     // Multiplies the embeddings, rounded to their dtype first.

  RotaryScaling rotary;
  std::vector<int64_t> windows;  // By layer; 0: full attention.
  // Of the layers with a window, where it is another.
  std::optional<RotaryScaling> window_rotary;

  int64_t value_dim() const { return latent ? latent->value_dim : head_dim; }
};

// A family's defaults of the keys that transformers calls hidden_size, num_attention_heads, ...
struct GatedDecoderDefaults {
  int64_t vocabulary_size, hidden_size, intermediate_size, layer_count, head_count;
  int64_t key_value_head_count = 0;  // 0: as many as heads.
  int64_t head_dim = 0;              // 0: hidden_size / num_attention_heads.
  int64_t max_positions;
  double norm_epsilon = 1e-6;
  std::string_view activation_key = "hidden_act";
  std::string_view activation = "silu";
};

// The sizes, the epsilon, the activation, the usual scale of attention, and windows of 0.
// Errors: those of ConfigReader; kDataLoss  head counts that do not fit together.
absl::StatusOr<GatedDecoderConfig> ReadGatedDecoder(const ConfigReader& config,
                                                    const GatedDecoderDefaults& defaults);

// `attention_bias`, of all four projections of attention. Errors: those of ConfigReader.
absl::Status ReadAttentionBias(const ConfigReader& config, GatedDecoderConfig& decoder);

// That, and `mlp_bias`. Errors: those of ConfigReader.
absl::Status ReadBiases(const ConfigReader& config, GatedDecoderConfig& decoder);

// Its heads, without a window.
GroupedQueryConfig HeadsOf(const GatedDecoderConfig& config);

// `window` in the layers that `layer_types` calls sliding_attention, 0 in those of full_attention;
// without the key, `window` where `slides` says so.
// Errors: those of ConfigReader.
absl::StatusOr<std::vector<int64_t>> ReadLayerWindows(
    const ConfigReader& config, int64_t layer_count, int64_t window,
    absl::FunctionRef<bool(int64_t layer)> slides);

// Takes every tensor, by Llama's names. Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeGatedDecoder(const std::string& model_type,
                                                                const GatedDecoderConfig& config,
                                                                TensorSource& tensors,
                                                                const std::string& device);

// The common scheme, the embedding of pad_token_id 0, and an output head of its own.
absl::StatusOr<InitialWeights> GatedInitialWeights(const ConfigReader& config);

// The architecture whose configs `Read` reads. Its checkpoints may carry the prefix "model." and,
// when they are old, the rotary frequencies.
template <absl::StatusOr<GatedDecoderConfig> (*Read)(const ConfigReader&)>
Architecture GatedArchitecture(std::string model_type, nlohmann::json (*tiny_config)(),
                               absl::StatusOr<InitialWeights> (*initial_weights)(
                                   const ConfigReader& config) = GatedInitialWeights) {
  const auto create =
      [](const ConfigReader& config, TensorSource& tensors,
         const std::string& device) -> absl::StatusOr<std::unique_ptr<SequenceModel>> {
    ESS_ASSIGN_OR_RETURN(const std::string type, config.String("model_type", std::nullopt));
    ESS_ASSIGN_OR_RETURN(const GatedDecoderConfig decoder, Read(config));
    return MakeGatedDecoder(type, decoder, tensors, device);
  };
  return {.model_type = std::move(model_type),
          .base_prefixes = {"model."},
          .ignored_suffixes = {".rotary_emb.inv_freq"},
          .create = create,
          .initial_weights = initial_weights,
          .tiny_config = tiny_config};
}

}  // namespace ess::models
