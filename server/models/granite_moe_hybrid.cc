#include "server/models/granite_moe_hybrid.h"

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/head_scan_mixer.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/mixture_of_experts.h"

namespace ess::models {
namespace {

constexpr double kMaxMultiplier = 1e6;
constexpr double kLeastDivisor = 1e-6;

// Keys and defaults of transformers' GraniteMoeHybridConfig.
struct GraniteConfig {
  GatedDecoderConfig decoder;
  HeadScanConfig scan;
  std::vector<bool> attends;  // By layer; the others are Mamba-2.
  bool rotates = false;
  int64_t shared_intermediate_size = 0;
  double residual_multiplier = 1;
  double logit_divisor = 1;
};

absl::Status ReadExperts(const ConfigReader& config, GatedDecoderConfig& decoder) {
  ExpertsConfig experts;
  ESS_ASSIGN_OR_RETURN(experts.count, config.Count("num_local_experts", 8));
  if (experts.count == 0) return absl::OkStatus();  // Whatever num_experts_per_tok says.
  ESS_ASSIGN_OR_RETURN(experts.routing.chosen, config.Size("num_experts_per_tok", 2));
  experts.routing.normalized = true;
  experts.intermediate_size = decoder.intermediate_size;
  experts.layers.assign(static_cast<size_t>(decoder.layer_count), true);
  experts.stacked_module = "block_sparse_moe.";
  experts.router = "router.layer";
  experts.gate = experts.up = experts.down = "";
  experts.stacked_gate_up = "input_linear.weight";
  experts.stacked_down = "output_linear.weight";
  ESS_RETURN_IF_ERROR(CheckExperts(config, experts));
  decoder.experts = std::move(experts);
  return absl::OkStatus();
}

absl::Status ReadMultipliers(const ConfigReader& config, GraniteConfig& granite) {
  const auto read = [&](std::string_view key, double least) {
    return config.Number(key, 1, least, kMaxMultiplier);
  };
  ESS_ASSIGN_OR_RETURN(granite.decoder.embedding_scale,
                       read("embedding_multiplier", -kMaxMultiplier));
  ESS_ASSIGN_OR_RETURN(granite.decoder.attention_scale,
                       read("attention_multiplier", -kMaxMultiplier));
  ESS_ASSIGN_OR_RETURN(granite.residual_multiplier, read("residual_multiplier", -kMaxMultiplier));
  ESS_ASSIGN_OR_RETURN(granite.logit_divisor, read("logits_scaling", kLeastDivisor));
  return absl::OkStatus();
}

absl::StatusOr<GraniteConfig> ReadGranite(const ConfigReader& config) {
  GraniteConfig granite;
  GatedDecoderConfig& decoder = granite.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, {.vocabulary_size = 32000,
                                                          .hidden_size = 4096,
                                                          .intermediate_size = 11008,
                                                          .layer_count = 32,
                                                          .head_count = 32,
                                                          .max_positions = 2048}));
  ESS_RETURN_IF_ERROR(ReadAttentionBias(config, decoder));
  const absl::StatusOr<std::string> positions =
      config.Choice("position_embedding_type", "nope", {"nope", "rope"});
  ESS_RETURN_IF_ERROR(positions.status());
  granite.rotates = *positions == "rope";
  if (granite.rotates) {
    ESS_ASSIGN_OR_RETURN(decoder.rotary,
                         ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions));
  }
  ESS_RETURN_IF_ERROR(ReadMultipliers(config, granite));
  ESS_RETURN_IF_ERROR(ReadExperts(config, decoder));
  ESS_ASSIGN_OR_RETURN(granite.shared_intermediate_size,
                       config.Size("shared_intermediate_size", 1024));
  HeadScanConfig& scan = granite.scan;
  scan.hidden_size = decoder.hidden_size;
  scan.activation = decoder.activation;
  scan.norm_epsilon = decoder.norm_epsilon;
  ESS_RETURN_IF_ERROR(ReadPrefixedHeadScan(config, /*width_key=*/"", /*default_width=*/0, scan));
  scan.output_bias = scan.input_bias;
  // The public class's other name of `layer_types`.
  const char* const kinds = config.Has("layers_block_type") ? "layers_block_type" : "layer_types";
  const std::vector<bool> none(static_cast<size_t>(decoder.layer_count), false);
  ESS_ASSIGN_OR_RETURN(granite.attends,
                       ReadLayerKinds(config, kinds, {"full_attention", "attention"},
                                      {"linear_attention", "mamba"}, none));
  return granite;
}

// The experts, where there are any, beside what every token goes through.
absl::StatusOr<FeedForward> TakeGraniteFeedForward(TensorSource& tensors,
                                                   const GraniteConfig& granite,
                                                   const std::string& prefix) {
  const GatedDecoderConfig& decoder = granite.decoder;
  const int64_t inner = granite.shared_intermediate_size;
  ESS_ASSIGN_OR_RETURN(const std::vector<Linear> parts,
                       TakeFusedLinear(tensors, prefix + "shared_mlp.input_linear", {inner, inner},
                                       decoder.hidden_size, /*bias=*/false));
  GatedFeedForward shared{.gate = parts[0], .up = parts[1], .activation = decoder.activation};
  ESS_ASSIGN_OR_RETURN(shared.down, TakeLinear(tensors, prefix + "shared_mlp.output_linear",
                                               decoder.hidden_size, inner, /*bias=*/false));
  std::optional<MixtureOfExperts> experts;
  if (decoder.experts) {
    ESS_ASSIGN_OR_RETURN(experts, TakeExperts(tensors, prefix, *decoder.experts,
                                              decoder.hidden_size, decoder.activation));
  }
  return [shared, experts, scale = granite.residual_multiplier](const at::Tensor& x) {
    at::Tensor y = shared(x);
    if (experts) y.add_((*experts)(x));
    return y.mul_(scale);
  };
}

absl::StatusOr<HybridLayer> TakeGraniteLayer(TensorSource& tensors, const GraniteConfig& granite,
                                             const std::string& prefix, size_t layer_index) {
  const GatedDecoderConfig& decoder = granite.decoder;
  const auto take_mixer = [&] {
    return granite.attends[layer_index]
               ? TakeAttentionMixer(tensors, prefix + "self_attn.", AttentionOf(decoder))
               : TakeHeadScanMixer(tensors, prefix + "mamba.", granite.scan);
  };
  ESS_ASSIGN_OR_RETURN(HybridLayer layer,
                       TakeMixerLayer(tensors, prefix, decoder,
                                      {.feed_forward = "post_attention_layernorm"}, take_mixer));
  layer.mixers.front().output_scale = granite.residual_multiplier;
  ESS_ASSIGN_OR_RETURN(layer.feed_forward, TakeGraniteFeedForward(tensors, granite, prefix));
  return layer;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateGranite(const ConfigReader& config,
                                                             TensorSource& tensors,
                                                             const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const GraniteConfig granite, ReadGranite(config));
  HybridDecoderConfig stack = HybridOf(granite.decoder);
  if (granite.rotates) {
    stack.rotary = granite.decoder.rotary;
    stack.max_positions = stack.rotary->PositionLimit();
  }
  stack.embedding_scale = granite.decoder.embedding_scale;
  stack.logit_scale = 1 / granite.logit_divisor;
  return MakeHybridDecoder(
      "granitemoehybrid", stack, tensors, device, [&](const std::string& prefix, int64_t layer) {
        return TakeGraniteLayer(tensors, granite, prefix, static_cast<size_t>(layer));
      });
}

absl::StatusOr<InitialWeights> GraniteInitialWeights(const ConfigReader& config) {
  return MambaHybridInitialWeights(config, /*padding=*/std::nullopt);
}

// The second layer attends; eight experts in all of them.
nlohmann::json TinyGraniteConfig() {
  return {{"model_type", "granitemoehybrid"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 12},
          {"shared_intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"attention_multiplier", 0.4},
          {"residual_multiplier", 0.7},
          {"layer_types", {"linear_attention", "full_attention", "linear_attention"}},
          {"mamba_n_heads", 4},
          {"mamba_n_groups", 2},
          {"mamba_d_state", 4},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture GraniteMoeHybridArchitecture() {
  return {.model_type = "granitemoehybrid",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateGranite,
          .initial_weights = GraniteInitialWeights,
          .tiny_config = TinyGraniteConfig};
}

}  // namespace ess::models
