#include "server/models/bamba.h"

#include <memory>
#include <string>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/head_scan_mixer.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' BambaConfig.
struct BambaConfig {
  GatedDecoderConfig decoder;
  HeadScanConfig scan;
  std::vector<bool> attends;  // By layer; the others are Mamba-2.
};

absl::StatusOr<BambaConfig> ReadBamba(const ConfigReader& config) {
  BambaConfig bamba;
  GatedDecoderConfig& decoder = bamba.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, {.vocabulary_size = 128000,
                                                          .hidden_size = 4096,
                                                          .intermediate_size = 14336,
                                                          .layer_count = 32,
                                                          .head_count = 32,
                                                          .key_value_head_count = 8,
                                                          .max_positions = 262144,
                                                          .norm_epsilon = 1e-5}));
  ESS_RETURN_IF_ERROR(ReadBiases(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions,
                                         {.default_fraction = 0.5, .may_be_partial = true}));
  HeadScanConfig& scan = bamba.scan;
  scan.hidden_size = decoder.hidden_size;
  scan.activation = decoder.activation;
  scan.norm_epsilon = decoder.norm_epsilon;
  ESS_RETURN_IF_ERROR(ReadPrefixedHeadScan(config, /*width_key=*/"", /*default_width=*/0, scan));
  scan.output_bias = scan.input_bias;
  ESS_ASSIGN_OR_RETURN(bamba.attends,
                       ReadListedLayers(config, "attn_layer_indices", decoder.layer_count));
  return bamba;
}

absl::StatusOr<HybridLayer> TakeBambaLayer(TensorSource& tensors, const BambaConfig& bamba,
                                           const std::string& prefix, size_t layer_index) {
  const GatedDecoderConfig& decoder = bamba.decoder;
  const auto take_mixer = [&] {
    return bamba.attends[layer_index]
               ? TakeAttentionMixer(tensors, prefix + "self_attn.", AttentionOf(decoder))
               : TakeHeadScanMixer(tensors, prefix + "mamba.", bamba.scan);
  };
  ESS_ASSIGN_OR_RETURN(HybridLayer layer, TakeMixerLayer(tensors, prefix, decoder, {}, take_mixer));
  ESS_ASSIGN_OR_RETURN(layer.feed_forward,
                       TakeFeedForward(tensors, prefix, "feed_forward.", layer_index, decoder));
  return layer;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateBamba(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const BambaConfig bamba, ReadBamba(config));
  HybridDecoderConfig stack = HybridOf(bamba.decoder);
  stack.rotary = bamba.decoder.rotary;
  stack.max_positions = stack.rotary->PositionLimit();
  stack.norm = "final_layernorm";
  return MakeHybridDecoder(
      "bamba", stack, tensors, device, [&](const std::string& prefix, int64_t layer) {
        return TakeBambaLayer(tensors, bamba, prefix, static_cast<size_t>(layer));
      });
}

// The second layer attends.
nlohmann::json TinyBambaConfig() {
  return {{"model_type", "bamba"},    {"vocab_size", 31},          {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 3},    {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"attn_layer_indices", {1}}, {"mamba_n_heads", 4},
          {"mamba_n_groups", 2},      {"mamba_d_state", 4},        {"max_position_embeddings", 64}};
}

}  // namespace

Architecture BambaArchitecture() {
  return {.model_type = "bamba",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateBamba,
          .initial_weights =
              [](const ConfigReader& config) {
                return MambaHybridInitialWeights(config, /*padding=*/0);
              },
          .tiny_config = TinyBambaConfig};
}

}  // namespace ess::models
