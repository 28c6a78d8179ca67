#include "server/models/jamba.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/mixture_of_experts.h"
#include "server/models/layers/selective_scan_mixer.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' JambaConfig.
struct JambaConfig {
  GatedDecoderConfig decoder;
  SelectiveScanConfig scan;
  std::vector<bool> attends;  // By layer; the others are Mamba.
};

// The layers that have something: every period-th one, from an offset on.
absl::StatusOr<std::vector<bool>> ReadPeriodic(const ConfigReader& config, int64_t layer_count,
                                               std::string_view what, int64_t default_period,
                                               int64_t default_offset) {
  const std::string period_key = fmt::format("{}_layer_period", what);
  const std::string offset_key = fmt::format("{}_layer_offset", what);
  ESS_ASSIGN_OR_RETURN(const int64_t period, config.Size(period_key, default_period));
  ESS_ASSIGN_OR_RETURN(const int64_t offset, config.Count(offset_key, default_offset));
  if (offset >= period) {
    return config.Contradiction(
        fmt::format("{} is {}, not below {} = {}", offset_key, offset, period_key, period));
  }
  std::vector<bool> layers;
  for (int64_t layer = 0; layer < layer_count; ++layer) layers.push_back(layer % period == offset);
  return layers;
}

absl::Status ReadScan(const ConfigReader& config, const GatedDecoderConfig& decoder,
                      SelectiveScanConfig& scan) {
  scan.hidden_size = decoder.hidden_size;
  scan.activation = decoder.activation;
  scan.feature_norms = ScanFeatureNorms::kLearned;
  scan.feature_norm_epsilon = decoder.norm_epsilon;
  ESS_ASSIGN_OR_RETURN(scan.channels,
                       config.SizeTimes("mamba_expand", 2, "hidden_size", scan.hidden_size));
  ESS_ASSIGN_OR_RETURN(scan.state_size, config.Size("mamba_d_state", 16));
  ESS_ASSIGN_OR_RETURN(scan.convolution_taps, config.Size("mamba_d_conv", 4));
  ESS_ASSIGN_OR_RETURN(scan.time_step_rank,
                       ReadTimeStepRank(config, "mamba_dt_rank", scan.hidden_size));
  ESS_ASSIGN_OR_RETURN(scan.convolution_bias, config.Bool("mamba_conv_bias", true));
  ESS_ASSIGN_OR_RETURN(scan.projection_bias, config.Bool("mamba_proj_bias", false));
  return absl::OkStatus();
}

// One expert is a plain feed-forward, without a router.
absl::Status ReadExperts(const ConfigReader& config, GatedDecoderConfig& decoder) {
  ExpertsConfig experts;
  ESS_ASSIGN_OR_RETURN(experts.count, config.Size("num_experts", "num_local_experts", 16));
  ESS_ASSIGN_OR_RETURN(experts.routing.chosen, config.Size("num_experts_per_tok", 2));
  ESS_ASSIGN_OR_RETURN(experts.layers, ReadPeriodic(config, decoder.layer_count, "expert",
                                                    /*default_period=*/2, /*default_offset=*/1));
  if (experts.count == 1) return absl::OkStatus();
  experts.intermediate_size = decoder.intermediate_size;
  experts.module = "feed_forward.";
  experts.stacked_module = "feed_forward.";
  experts.router = "router";
  ESS_RETURN_IF_ERROR(CheckExperts(config, experts));
  decoder.experts = experts;
  return absl::OkStatus();
}

absl::StatusOr<JambaConfig> ReadJamba(const ConfigReader& config) {
  JambaConfig jamba;
  GatedDecoderConfig& decoder = jamba.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, {.vocabulary_size = 65536,
                                                          .hidden_size = 4096,
                                                          .intermediate_size = 14336,
                                                          .layer_count = 32,
                                                          .head_count = 32,
                                                          .key_value_head_count = 8,
                                                          .max_positions = 262144}));
  ESS_RETURN_IF_ERROR(ReadExperts(config, decoder));
  ESS_RETURN_IF_ERROR(ReadScan(config, decoder, jamba.scan));
  ESS_ASSIGN_OR_RETURN(jamba.attends, ReadPeriodic(config, decoder.layer_count, "attn",
                                                   /*default_period=*/8, /*default_offset=*/4));
  return jamba;
}

absl::StatusOr<HybridLayer> TakeJambaLayer(TensorSource& tensors, const JambaConfig& jamba,
                                           const std::string& prefix, size_t layer_index) {
  const GatedDecoderConfig& decoder = jamba.decoder;
  const auto take_mixer = [&] {
    return jamba.attends[layer_index]
               ? TakeAttentionMixer(tensors, prefix + "self_attn.", AttentionOf(decoder))
               : TakeSelectiveScanMixer(tensors, prefix + "mamba.", jamba.scan);
  };
  ESS_ASSIGN_OR_RETURN(HybridLayer layer, TakeMixerLayer(tensors, prefix, decoder, {}, take_mixer));
  ESS_ASSIGN_OR_RETURN(layer.feed_forward,
                       TakeFeedForward(tensors, prefix, "feed_forward.", layer_index, decoder));
  return layer;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateJamba(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const JambaConfig jamba, ReadJamba(config));
  HybridDecoderConfig stack = HybridOf(jamba.decoder);
  stack.norm = "final_layernorm";
  return MakeHybridDecoder(
      "jamba", stack, tensors, device, [&](const std::string& prefix, int64_t layer) {
        return TakeJambaLayer(tensors, jamba, prefix, static_cast<size_t>(layer));
      });
}

// Layer 4 attends; layers 1 and 3 have experts.
nlohmann::json TinyJambaConfig() {
  return {{"model_type", "jamba"},    {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 5}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"num_experts", 3},       {"mamba_d_state", 4},
          {"mamba_d_conv", 3},        {"mamba_dt_rank", 3},     {"mamba_proj_bias", true}};
}

}  // namespace

Architecture JambaArchitecture() {
  return {.model_type = "jamba",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateJamba,
          .initial_weights =
              [](const ConfigReader& config) {
                return MambaHybridInitialWeights(config, /*padding=*/0);
              },
          .tiny_config = TinyJambaConfig};
}

}  // namespace ess::models
