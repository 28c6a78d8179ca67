#include "server/models/gla.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/convolved_projection.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

// Constants of the public layer, which its config does not reach.
constexpr int64_t kGateRank = 16;
constexpr double kGateLogitNormalizer = 16;

constexpr double kMaxClamp = 1e6;

struct GlaConfig {
  FlaSizes sizes;
  FlaHeads heads;
  int64_t convolution_taps = 0;             // 0: no short convolutions.
  ActivationInPlace feature_map = nullptr;  // Of queries and keys; null: none.
  std::optional<double> log_gate_minimum;
  GatedOutputLayout output;
};

absl::StatusOr<GlaConfig> ReadGla(const ConfigReader& config) {
  GlaConfig gla;
  ESS_ASSIGN_OR_RETURN(gla.sizes, ReadFlaSizes(config, {}));
  ESS_ASSIGN_OR_RETURN(gla.heads, ReadFlaHeads(config, gla.sizes.hidden_size,
                                               {.count = 4, .expand_k = 0.5, .expand_v = 1}));
  ESS_ASSIGN_OR_RETURN(gla.convolution_taps, ReadShortConvolution(config, false));
  ESS_ASSIGN_OR_RETURN(gla.feature_map, ReadFlaActivation(config, "feature_map", ""));
  if (config.Has("clamp_min")) {
    ESS_ASSIGN_OR_RETURN(gla.log_gate_minimum,
                         config.Number("clamp_min", std::nullopt, -kMaxClamp, 0));
  }
  ESS_ASSIGN_OR_RETURN(gla.output, ReadFlaOutput(config, gla.sizes, gla.heads));
  return gla;
}

class GlaMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const GlaConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<GlaMixer>();
    mixer->config_ = config;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const auto take = [&](const std::string& name, int64_t outputs) {
      return TakeConvolvedProjection(
          tensors, prefix + name, outputs, width, config.convolution_taps,
          config.convolution_taps > 0 ? FindActivation("silu") : nullptr);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q", heads.count * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k", heads.groups * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v", heads.groups * heads.value_dim));
    ESS_ASSIGN_OR_RETURN(mixer->gate_down_, TakeLinear(tensors, prefix + "gk_proj.0", kGateRank,
                                                       width, /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(mixer->gate_up_,
                         TakeLinear(tensors, prefix + "gk_proj.1", heads.groups * heads.key_dim,
                                    kGateRank, /*bias=*/true));
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeGatedOutput(tensors, prefix, config.output));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.heads.key_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const FlaHeads& heads = config_.heads;
    at::Tensor queries = query_.Features(x, heads.key_dim);
    at::Tensor keys = key_.Features(x, heads.key_dim);
    if (config_.feature_map != nullptr) {
      config_.feature_map(queries);
      config_.feature_map(keys);
    }
    const GatedScanInputs scan = {
        .head_count = heads.count,
        .queries = queries.mul(1 / std::sqrt(static_cast<double>(heads.key_dim))),
        .keys = keys,
        .values = value_.Heads(x, heads.value_dim),
        .log_gates = LogGates(x)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));
    return y.defined() ? output_(y, x) : y;
  }

 private:
  // [L, D] => [L, G, N]
  at::Tensor LogGates(const at::Tensor& x) const {
    at::Tensor gates = at::log_sigmoid(gate_up_(gate_down_(x.to(at::kFloat))));
    gates.div_(kGateLogitNormalizer);
    if (config_.log_gate_minimum.has_value()) gates.clamp_min_(*config_.log_gate_minimum);
    return gates.view({x.size(0), -1, config_.heads.key_dim});
  }

  GlaConfig config_;
  ConvolvedProjection query_, key_, value_;
  Linear gate_down_, gate_up_;
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateGla(const ConfigReader& config,
                                                         TensorSource& tensors,
                                                         const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const GlaConfig gla, ReadGla(config));
  return MakeFlaDecoder(
      "gla", config, gla.sizes, tensors, device,
      [&](const std::string& prefix, int64_t) { return GlaMixer::Take(tensors, gla, prefix); });
}

// Shared keys and values, short convolutions, and a layer of softmax attention.
nlohmann::json TinyGlaConfig() {
  return {{"model_type", "gla"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_heads", 4},
          {"num_kv_heads", 2},
          {"use_short_conv", true},
          {"conv_size", 3},
          {"attn", {{"layers", {1}}, {"num_heads", 4}, {"num_kv_heads", 2}, {"window_size", 3}}}};
}

}  // namespace

Architecture GlaArchitecture() { return FlaArchitecture("gla", CreateGla, TinyGlaConfig); }

}  // namespace ess::models
