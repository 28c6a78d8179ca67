#include "server/models/falcon_h1.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/head_scan_mixer.h"

namespace ess::models {
namespace {

constexpr double kMaxMultiplier = 1e6;

// Constants that multiply activations (muP). 1: no effect.
struct Multipliers {
  double embedding = 1, logits = 1;
  double attention_in = 1, attention_out = 1, key = 1;
  double scan_in = 1, scan_out = 1;
  double gate = 1, down = 1;  // Of the feed-forward.
};

// Keys and defaults of transformers' FalconH1Config.
struct FalconH1Config {
  GatedDecoderConfig decoder;
  HeadScanConfig scan;
  Multipliers multipliers;
};

absl::Status ReadMultipliers(const ConfigReader& config, FalconH1Config& falcon) {
  Multipliers& multipliers = falcon.multipliers;
  const auto read = [&](std::string_view key, double& value) -> absl::Status {
    ESS_ASSIGN_OR_RETURN(value, config.Number(key, 1, -kMaxMultiplier, kMaxMultiplier));
    return absl::OkStatus();
  };
  ESS_RETURN_IF_ERROR(read("embedding_multiplier", multipliers.embedding));
  ESS_RETURN_IF_ERROR(read("lm_head_multiplier", multipliers.logits));
  ESS_RETURN_IF_ERROR(read("attention_in_multiplier", multipliers.attention_in));
  ESS_RETURN_IF_ERROR(read("attention_out_multiplier", multipliers.attention_out));
  ESS_RETURN_IF_ERROR(read("key_multiplier", multipliers.key));
  ESS_RETURN_IF_ERROR(read("ssm_in_multiplier", multipliers.scan_in));
  ESS_RETURN_IF_ERROR(read("ssm_out_multiplier", multipliers.scan_out));
  const auto read_list = [&](std::string_view key, int64_t count, double* values) -> absl::Status {
    if (!config.Has(key)) return absl::OkStatus();
    ESS_ASSIGN_OR_RETURN(const std::vector<double> list,
                         config.Numbers(key, count, -kMaxMultiplier, kMaxMultiplier));
    std::copy(list.begin(), list.end(), values);
    return absl::OkStatus();
  };
  double feed_forward[] = {1, 1};
  ESS_RETURN_IF_ERROR(read_list("mlp_multipliers", 2, feed_forward));
  multipliers.gate = feed_forward[0];
  multipliers.down = feed_forward[1];
  return read_list("ssm_multipliers", 5, falcon.scan.multipliers.data());
}

absl::Status ReadScan(const ConfigReader& config, FalconH1Config& falcon) {
  HeadScanConfig& scan = falcon.scan;
  scan.hidden_size = falcon.decoder.hidden_size;
  scan.activation = falcon.decoder.activation;
  scan.norm_epsilon = falcon.decoder.norm_epsilon;
  ESS_RETURN_IF_ERROR(ReadPrefixedHeadScan(config, "mamba_d_ssm", /*default_width=*/1024, scan));
  ESS_ASSIGN_OR_RETURN(scan.output_bias, config.Bool("projectors_bias", false));
  ESS_ASSIGN_OR_RETURN(const bool has_norm, config.Bool("mamba_rms_norm", false));
  ESS_ASSIGN_OR_RETURN(const bool norm_first, config.Bool("mamba_norm_before_gate", true));
  scan.norm = !has_norm    ? ScanOutputNorm::kNone
              : norm_first ? ScanOutputNorm::kNormFirst
                           : ScanOutputNorm::kGateFirst;
  return absl::OkStatus();
}

absl::StatusOr<FalconH1Config> ReadFalconH1(const ConfigReader& config) {
  FalconH1Config falcon;
  GatedDecoderConfig& decoder = falcon.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, {.vocabulary_size = 128000,
                                                          .hidden_size = 4096,
                                                          .intermediate_size = 14336,
                                                          .layer_count = 32,
                                                          .head_count = 32,
                                                          .key_value_head_count = 8,
                                                          .max_positions = 8192,
                                                          .norm_epsilon = 1e-5}));
  ESS_RETURN_IF_ERROR(ReadBiases(config, decoder));
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions));
  ESS_RETURN_IF_ERROR(ReadScan(config, falcon));
  ESS_RETURN_IF_ERROR(ReadMultipliers(config, falcon));
  return falcon;
}

absl::StatusOr<HybridLayer> TakeFalconH1Layer(TensorSource& tensors, const FalconH1Config& falcon,
                                              const std::string& prefix) {
  const GatedDecoderConfig& decoder = falcon.decoder;
  const Multipliers& multipliers = falcon.multipliers;
  const auto norm = [&](const char* name) {
    return TakeRmsNorm(tensors, prefix + name, decoder.hidden_size, decoder.norm_epsilon);
  };
  HybridLayer layer;
  ESS_ASSIGN_OR_RETURN(layer.mixer_norm, norm("input_layernorm"));

  HybridMixer& attention = layer.mixers.emplace_back();
  attention.kind = "attention";
  attention.input_scale = multipliers.attention_in;
  attention.output_scale = multipliers.attention_out;
  AttentionMixerConfig attention_config = AttentionOf(decoder);
  attention_config.heads.scale *= multipliers.key;
  ESS_ASSIGN_OR_RETURN(attention.mixer,
                       TakeAttentionMixer(tensors, prefix + "self_attn.", attention_config));

  HybridMixer& mamba = layer.mixers.emplace_back();
  mamba.kind = "mamba";
  mamba.input_scale = multipliers.scan_in;
  mamba.output_scale = multipliers.scan_out;
  ESS_ASSIGN_OR_RETURN(mamba.mixer, TakeHeadScanMixer(tensors, prefix + "mamba.", falcon.scan));

  ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, norm("pre_ff_layernorm"));
  ESS_ASSIGN_OR_RETURN(const GatedFeedForward feed_forward,
                       TakeGatedFeedForward(tensors, prefix + "feed_forward.",
                                            {.width = decoder.hidden_size,
                                             .inner = decoder.intermediate_size,
                                             .bias = decoder.feed_forward_bias,
                                             .activation = decoder.activation}));
  layer.feed_forward = [feed_forward, multipliers](const at::Tensor& x) {
    at::Tensor gate = feed_forward.gate(x).mul_(multipliers.gate);
    feed_forward.activation(gate);
    return feed_forward.down(gate.mul_(feed_forward.up(x))).mul_(multipliers.down);
  };
  return layer;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateFalconH1(const ConfigReader& config,
                                                              TensorSource& tensors,
                                                              const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const FalconH1Config falcon, ReadFalconH1(config));
  HybridDecoderConfig stack = HybridOf(falcon.decoder);
  stack.rotary = falcon.decoder.rotary;
  stack.max_positions = stack.rotary->PositionLimit();
  stack.embedding_scale = falcon.multipliers.embedding;
  stack.logit_scale = falcon.multipliers.logits;
  stack.norm = "final_layernorm";
  return MakeHybridDecoder("falcon_h1", stack, tensors, device,
                           [&](const std::string& prefix, int64_t) {
                             return TakeFalconH1Layer(tensors, falcon, prefix);
                           });
}

// Four heads of Mamba-2 in two groups, a norm after them, and multipliers.
nlohmann::json TinyFalconH1Config() {
  return {{"model_type", "falcon_h1"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"mamba_d_ssm", 24},
          {"mamba_n_heads", 4},
          {"mamba_n_groups", 2},
          {"mamba_d_state", 4},
          {"mamba_rms_norm", true},
          {"key_multiplier", 0.5},
          {"ssm_multipliers", {0.5, 1.5, 0.75, 1.25, 1.0}},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture FalconH1Architecture() {
  return {.model_type = "falcon_h1",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateFalconH1,
          .initial_weights =
              [](const ConfigReader& config) {
                return MambaHybridInitialWeights(config, /*padding=*/0);
              },
          .tiny_config = TinyFalconH1Config};
}

}  // namespace ess::models
