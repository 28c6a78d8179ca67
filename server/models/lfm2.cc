#include "server/models/lfm2.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/hybrid_decoder.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/linear.h"
#include "server/operators/convolution.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' Lfm2Config.
struct Lfm2Config {
  GatedDecoderConfig decoder;
  int64_t convolution_taps = 0;
  bool convolution_bias = false;  // Of its projections too.
  std::vector<bool> attends;      // By layer; the others convolve.
};

// y = out(gate_out * convolution(gate_in * x)), all of it from one projection of the input.
class GatedConvolutionMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const std::string& prefix,
                                                             const Lfm2Config& config) {
    const int64_t width = config.decoder.hidden_size;
    const bool bias = config.convolution_bias;
    auto mixer = std::make_unique<GatedConvolutionMixer>();
    ESS_ASSIGN_OR_RETURN(mixer->input_,
                         TakeLinear(tensors, prefix + "in_proj", 3 * width, width, bias));
    ESS_ASSIGN_OR_RETURN(mixer->convolution_, TakeCausalConvolution(tensors, prefix + "conv", width,
                                                                    config.convolution_taps, bias));
    ESS_ASSIGN_OR_RETURN(mixer->output_,
                         TakeLinear(tensors, prefix + "out_proj", width, width, bias));
    // Taps count from the present backwards in an operator, and towards it in a convolution.
    mixer->filter_ = mixer->convolution_.weight.to(at::kFloat).squeeze(1).flip(1);
    return mixer;
  }

  Mixer Describe() const override {
    return {.operator_class = "Convolution",
            .head_count = filter_.size(0),
            .channels = {1},
            .state_size = operators::StateSize::GrowingUpTo(filter_.size(1) - 1)};
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& u, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    // Gates and taps are factors of the operator: rounding their products to less invents rank.
    const std::vector<at::Tensor> parts = input_(u.to(at::kFloat)).chunk(3, 1);  // [L, D] each
    const at::Tensor &gate_in = parts[0], &gate_out = parts[1], &x = parts[2];
    if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(gate_in.t(), gate_out.t(), mixer, pass));
    if (pass.EndsAfter(mixer)) return at::Tensor();
    return output_(convolution_(gate_in * x).mul(gate_out).to(u.scalar_type()));
  }

 private:
  // Gates are [D, L]. Channels go in groups of bounded size.
  absl::Status Capture(const at::Tensor& gate_in, const at::Tensor& gate_out, int64_t mixer,
                       ForwardPass& pass) const {
    const int64_t channels = gate_in.size(0);
    const int64_t length = gate_in.size(1);
    const at::Tensor taps = filter_.narrow(1, 0, std::min(filter_.size(1), length));
    const int64_t channel_bytes = 2 * length * static_cast<int64_t>(sizeof(double));
    const int64_t most = std::max<int64_t>(kMaxMapBytes / channel_bytes, 1);
    for (int64_t first = 0; first < channels; first += most) {
      ESS_RETURN_IF_ERROR(pass.CheckCancellation());
      const auto group = [first, count = std::min(most, channels - first)](const at::Tensor& all) {
        return all.narrow(0, first, count);
      };
      const operators::Convolution op(group(taps), group(gate_out), group(gate_in));
      ESS_RETURN_IF_ERROR(pass.Accept(mixer, first, op));
    }
    return absl::OkStatus();
  }

  Linear input_;  // [3 D, D]: the gates before and after the convolution, and what it convolves.
  CausalConvolution convolution_;
  at::Tensor filter_;  // [D, K]
  Linear output_;
};

// The width that the file's number stands for.
absl::StatusOr<int64_t> ReadIntermediateSize(const ConfigReader& config) {
  constexpr std::string_view kMultiplier = "block_ffn_dim_multiplier";
  const std::string_view key = config.Has("block_ff_dim") ? "block_ff_dim" : "intermediate_size";
  ESS_ASSIGN_OR_RETURN(const int64_t given, config.Size(key, 12288));
  ESS_ASSIGN_OR_RETURN(const bool adjusts, config.Bool("block_auto_adjust_ff_dim", true));
  ESS_ASSIGN_OR_RETURN(const double multiplier, config.Number(kMultiplier, 1, 1e-3, 1e3));
  ESS_ASSIGN_OR_RETURN(const int64_t multiple, config.Size("block_multiple_of", 256));
  if (!adjusts) return given;
  const int64_t two_thirds = std::max<int64_t>(2 * given / 3, 1);
  if (config.IsNull(kMultiplier)) return two_thirds;
  const int64_t scaled =
      std::max<int64_t>(static_cast<int64_t>(multiplier * static_cast<double>(two_thirds)), 1);
  const int64_t rounded = (scaled + multiple - 1) / multiple * multiple;
  if (rounded > kMaxConfigSize) {
    return config.Unsupported(kMultiplier, fmt::format("a width up to {}", kMaxConfigSize));
  }
  return rounded;
}

absl::StatusOr<std::vector<bool>> ReadAttends(const ConfigReader& config, int64_t layer_count) {
  constexpr std::string_view kKinds = "layer_types", kIndices = "full_attn_idxs";
  if (!config.Has(kKinds) && config.Has(kIndices)) {
    return ReadListedLayers(config, kIndices, layer_count);
  }
  const std::vector<bool> all(static_cast<size_t>(layer_count), true);
  return ReadLayerKinds(config, kKinds, {"full_attention"}, {"conv"}, all);
}

absl::StatusOr<Lfm2Config> ReadLfm2(const ConfigReader& config) {
  Lfm2Config lfm2;
  GatedDecoderConfig& decoder = lfm2.decoder;
  ESS_ASSIGN_OR_RETURN(decoder, ReadGatedDecoder(config, {.vocabulary_size = 65536,
                                                          .hidden_size = 2560,
                                                          .intermediate_size = 12288,
                                                          .layer_count = 32,
                                                          .head_count = 32,
                                                          .key_value_head_count = 8,
                                                          .max_positions = 128000}));
  ESS_ASSIGN_OR_RETURN(decoder.norm_epsilon, config.Number("norm_eps", 1e-5, 0, 1));
  decoder.query_key_norm = true;
  ESS_ASSIGN_OR_RETURN(decoder.intermediate_size, ReadIntermediateSize(config));
  ESS_ASSIGN_OR_RETURN(decoder.rotary,
                       ReadRotaryScaling(config, decoder.head_dim, decoder.max_positions,
                                         {.default_theta = 1000000}));
  ESS_ASSIGN_OR_RETURN(lfm2.convolution_taps, config.Size("conv_L_cache", 3));
  ESS_ASSIGN_OR_RETURN(lfm2.convolution_bias, config.Bool("conv_bias", false));
  ESS_ASSIGN_OR_RETURN(lfm2.attends, ReadAttends(config, decoder.layer_count));
  return lfm2;
}

absl::StatusOr<HybridLayer> TakeLfm2Layer(TensorSource& tensors, const Lfm2Config& lfm2,
                                          const std::string& prefix, bool attends) {
  const GatedDecoderConfig& decoder = lfm2.decoder;
  AttentionMixerConfig attention = AttentionOf(decoder);
  attention.output = "out_proj";
  attention.heads.query_norm = "q_layernorm";
  attention.heads.key_norm = "k_layernorm";
  const auto take_mixer = [&] {
    return attends ? TakeAttentionMixer(tensors, prefix + "self_attn.", attention)
                   : GatedConvolutionMixer::Take(tensors, prefix + "conv.", lfm2);
  };
  ESS_ASSIGN_OR_RETURN(
      HybridLayer layer,
      TakeMixerLayer(tensors, prefix, decoder,
                     {.mixer = "operator_norm", .feed_forward = "ffn_norm"}, take_mixer));
  ESS_ASSIGN_OR_RETURN(layer.feed_forward, TakeGatedFeedForward(tensors, prefix + "feed_forward.",
                                                                {.width = decoder.hidden_size,
                                                                 .inner = decoder.intermediate_size,
                                                                 .activation = decoder.activation,
                                                                 .gate = "w1",
                                                                 .up = "w3",
                                                                 .down = "w2"}));
  return layer;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateLfm2(const ConfigReader& config,
                                                          TensorSource& tensors,
                                                          const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Lfm2Config lfm2, ReadLfm2(config));
  HybridDecoderConfig stack = HybridOf(lfm2.decoder);
  stack.rotary = lfm2.decoder.rotary;
  stack.max_positions = stack.rotary->PositionLimit();
  stack.norm = "embedding_norm";
  return MakeHybridDecoder(
      "lfm2", stack, tensors, device, [&](const std::string& prefix, int64_t layer) {
        return TakeLfm2Layer(tensors, lfm2, prefix, lfm2.attends[static_cast<size_t>(layer)]);
      });
}

absl::StatusOr<InitialWeights> Lfm2InitialWeights(const ConfigReader& config) {
  // The older name of tie_word_embeddings.
  ESS_ASSIGN_OR_RETURN(const bool tied, config.Bool("tie_embedding", true));
  return ReadInitialWeights(config,
                            {.tied_head = tied, .padded_embedding = "embed_tokens", .padding = 0});
}

// A layer of attention between two of convolution.
nlohmann::json TinyLfm2Config() {
  return {{"model_type", "lfm2"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"block_multiple_of", 4},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"conv_L_cache", 3},
          {"conv_bias", true},
          {"layer_types", {"conv", "full_attention", "conv"}},
          {"max_position_embeddings", 64}};
}

}  // namespace

Architecture Lfm2Architecture() {
  return {.model_type = "lfm2",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateLfm2,
          .initial_weights = Lfm2InitialWeights,
          .tiny_config = TinyLfm2Config};
}

}  // namespace ess::models
