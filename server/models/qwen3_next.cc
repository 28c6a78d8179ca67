#include "server/models/qwen3_next.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/gated_delta_mixer.h"
#include "server/models/layers/mixture_of_experts.h"
#include "server/models/qwen_experts.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Qwen3NextConfig.
struct Qwen3NextConfig {
  GatedDecoderConfig decoder;
  GatedDeltaConfig delta;
  std::vector<bool> attends;  // By layer; the others are Gated DeltaNet.
};

// Every full_attention_interval-th layer, unless layer_types says otherwise.
absl::StatusOr<std::vector<bool>> ReadAttends(const ConfigReader& config, int64_t layer_count) {
  ESS_ASSIGN_OR_RETURN(const int64_t interval, config.Size("full_attention_interval", 4));
  std::vector<bool> periodic;
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    periodic.push_back((layer + 1) % interval == 0);
  }
  return ReadLayerKinds(config, "layer_types", {"full_attention"}, {"linear_attention"}, periodic);
}

// What both families read alike.
absl::StatusOr<Qwen3NextConfig> ReadMixers(const ConfigReader& config,
                                           const GatedDecoderDefaults& defaults) {
  Qwen3NextConfig qwen;
  GatedDecoderConfig& decoder = qwen.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, defaults));
  decoder.norm_kind = RmsNormKind::kGemma;
  decoder.query_key_norm = true;
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions,
                                         {.default_fraction = 0.25, .may_be_partial = true}));
  qwen.delta.hidden_size = decoder.hidden_size;
  qwen.delta.activation = decoder.activation;
  qwen.delta.norm_epsilon = decoder.norm_epsilon;
  ESS_RETURN_IF_ERROR(ReadGatedDelta(config, qwen.delta));
  ESS_ASSIGN_OR_RETURN(qwen.attends, ReadAttends(config, decoder.layer_count));
  return qwen;
}

absl::StatusOr<Qwen3NextConfig> ReadQwen3Next(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(Qwen3NextConfig qwen, ReadMixers(config, {.vocabulary_size = 151936,
                                                                 .hidden_size = 2048,
                                                                 .intermediate_size = 5632,
                                                                 .layer_count = 48,
                                                                 .head_count = 16,
                                                                 .key_value_head_count = 2,
                                                                 .head_dim = 256,
                                                                 .max_positions = 32768}));
  qwen.delta.rows_by_key_head = true;
  ESS_ASSIGN_OR_RETURN(qwen.decoder.experts, ReadQwenExperts(config, qwen.decoder.layer_count,
                                                             {.count = 512,
                                                              .chosen = 10,
                                                              .intermediate_size = 512,
                                                              .normalized = true,
                                                              .shared_intermediate_size = 512}));
  return qwen;
}

absl::StatusOr<Qwen3NextConfig> ReadQwen35Text(const ConfigReader& config) {
  return ReadMixers(config, {.vocabulary_size = 248320,
                             .hidden_size = 4096,
                             .intermediate_size = 12288,
                             .layer_count = 32,
                             .head_count = 16,
                             .key_value_head_count = 4,
                             .head_dim = 256,
                             .max_positions = 32768});
}

absl::StatusOr<HybridLayer> TakeQwen3NextLayer(TensorSource& tensors, const Qwen3NextConfig& qwen,
                                               const std::string& prefix, size_t layer_index) {
  const GatedDecoderConfig& decoder = qwen.decoder;
  AttentionMixerConfig attention = AttentionOf(decoder);
  attention.heads.gated = true;
  const auto take_mixer = [&] {
    return qwen.attends[layer_index]
               ? TakeAttentionMixer(tensors, prefix + "self_attn.", attention)
               : TakeGatedDeltaMixer(tensors, prefix + "linear_attn.", qwen.delta);
  };
  ESS_ASSIGN_OR_RETURN(HybridLayer layer,
                       TakeMixerLayer(tensors, prefix, decoder,
                                      {.feed_forward = "post_attention_layernorm"}, take_mixer));
  ESS_ASSIGN_OR_RETURN(layer.feed_forward,
                       TakeFeedForward(tensors, prefix, "mlp.", layer_index, decoder));
  return layer;
}

template <absl::StatusOr<Qwen3NextConfig> (*Read)(const ConfigReader&)>
absl::StatusOr<std::unique_ptr<SequenceModel>> Create(const ConfigReader& config,
                                                      TensorSource& tensors,
                                                      const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", std::nullopt));
  ESS_ASSIGN_OR_RETURN(const Qwen3NextConfig qwen, Read(config));
  HybridDecoderConfig stack = HybridOf(qwen.decoder);
  stack.rotary = qwen.decoder.rotary;
  stack.max_positions = stack.rotary->PositionLimit();
  tensors.IgnorePrefix("mtp.");  // Layers that predict tokens after the next one.
  return MakeHybridDecoder(
      model_type, stack, tensors, device, [&](const std::string& prefix, int64_t layer) {
        return TakeQwen3NextLayer(tensors, qwen, prefix, static_cast<size_t>(layer));
      });
}

absl::StatusOr<InitialWeights> QwenInitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(config, {.norm_weight = 0, .padded_embedding = "embed_tokens"},
                            {{.names = "*.linear_attn.norm.weight", .distribution = Constant(1)},
                             {.names = "*.A_log", .distribution = LogOfUniform(0.01, 16)},
                             {.names = "*.dt_bias", .distribution = Constant(1)}});
}

// Two value heads for each key head; the second layer attends, the third has no experts.
nlohmann::json TinyQwen3NextConfig() {
  return {{"model_type", "qwen3_next"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"moe_intermediate_size", 12},
          {"shared_expert_intermediate_size", 20},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 8},
          {"linear_num_key_heads", 2},
          {"linear_num_value_heads", 4},
          {"linear_key_head_dim", 8},
          {"linear_value_head_dim", 12},
          {"full_attention_interval", 2},
          {"num_experts", 3},
          {"num_experts_per_tok", 2},
          {"mlp_only_layers", {2}},
          {"max_position_embeddings", 64}};
}

nlohmann::json TinyQwen35TextConfig() {
  nlohmann::json config = TinyQwen3NextConfig();
  config["model_type"] = "qwen3_5_text";
  for (const char* const key : {"moe_intermediate_size", "shared_expert_intermediate_size",
                                "num_experts", "num_experts_per_tok", "mlp_only_layers"}) {
    config.erase(key);
  }
  return config;
}

}  // namespace

Architecture Qwen3NextArchitecture() {
  return {.model_type = "qwen3_next",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = Create<ReadQwen3Next>,
          .initial_weights = QwenInitialWeights,
          .tiny_config = TinyQwen3NextConfig};
}

Architecture Qwen35TextArchitecture() {
  return {.model_type = "qwen3_5_text",
          .base_prefixes = {"model.language_model.", "model."},
          .ignored_suffixes = {},
          .create = Create<ReadQwen35Text>,
          .initial_weights = QwenInitialWeights,
          .tiny_config = TinyQwen35TextConfig};
}

}  // namespace ess::models
