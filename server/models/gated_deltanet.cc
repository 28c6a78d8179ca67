#include "server/models/gated_deltanet.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/convolved_projection.h"
#include "server/models/layers/delta_scan.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/unit_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr double kMaxExpansion = 1024;

struct GatedDeltanetConfig {
  FlaSizes sizes;
  int64_t key_head_count = 0;         // Queries too; value heads share them.
  int64_t value_head_count = 0;       // H
  int64_t key_dim = 0;                // N
  int64_t value_dim = 0;              // d
  int64_t convolution_taps = 0;       // 0: no short convolutions.
  bool negative_eigenvalues = false;  // beta up to 2.
  bool output_gate = true;
  ActivationInPlace gate_activation = nullptr;
};

absl::Status ReadHeads(const ConfigReader& config, GatedDeltanetConfig& delta) {
  ESS_ASSIGN_OR_RETURN(delta.key_head_count, config.Size("num_heads", 6));
  ESS_ASSIGN_OR_RETURN(delta.value_head_count, config.Size("num_v_heads", delta.key_head_count));
  ESS_ASSIGN_OR_RETURN(delta.key_dim, config.Size("head_dim", 256));
  ESS_ASSIGN_OR_RETURN(const double expand,
                       config.Number("expand_v", 2, 1 / kMaxExpansion, kMaxExpansion));
  ESS_ASSIGN_OR_RETURN(delta.value_dim,
                       WholeProduct(config, delta.key_dim, expand, "head_dim * expand_v"));
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_v_heads", delta.value_head_count, "num_heads",
                                           delta.key_head_count));
  if (std::max(delta.key_dim, delta.value_dim) > kMaxConfigSize / delta.value_head_count) {
    return config.Unsupported("head_dim",
                              fmt::format("heads times their width up to {}", kMaxConfigSize));
  }
  return absl::OkStatus();
}

absl::StatusOr<GatedDeltanetConfig> ReadGatedDeltanet(const ConfigReader& config) {
  GatedDeltanetConfig delta;
  ESS_ASSIGN_OR_RETURN(delta.sizes, ReadFlaSizes(config, {.layer_count = 21}));
  ESS_RETURN_IF_ERROR(ReadHeads(config, delta));
  ESS_ASSIGN_OR_RETURN(delta.convolution_taps, ReadShortConvolution(config, true));
  ESS_ASSIGN_OR_RETURN(delta.negative_eigenvalues, config.Bool("allow_neg_eigval", false));
  ESS_ASSIGN_OR_RETURN(delta.output_gate, config.Bool("use_gate", true));
  ESS_ASSIGN_OR_RETURN(
      const std::string activation,
      config.Choice("output_gate_activation", "swish", {"swish", "silu", "sigmoid"}));
  delta.gate_activation = FindActivation(activation);
  return delta;
}

class GatedDeltanetMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const GatedDeltanetConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<GatedDeltanetMixer>();
    mixer->config_ = config;
    const int64_t width = config.sizes.hidden_size;
    const int64_t heads = config.value_head_count;
    const auto take = [&](const std::string& name, int64_t outputs) {
      return TakeConvolvedProjection(tensors, prefix + name, outputs, width,
                                     config.convolution_taps, FindActivation("silu"));
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q", config.key_head_count * config.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k", config.key_head_count * config.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v", heads * config.value_dim));
    ESS_ASSIGN_OR_RETURN(mixer->alpha_, TakeLinear(tensors, prefix + "a_proj", heads, width,
                                                   /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(mixer->beta_, TakeLinear(tensors, prefix + "b_proj", heads, width,
                                                  /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates, tensors.Take(prefix + "A_log", {heads}));
    mixer->A_ = log_rates.to(at::kFloat).exp().neg();
    ESS_ASSIGN_OR_RETURN(const at::Tensor bias, tensors.Take(prefix + "dt_bias", {heads}));
    mixer->time_step_bias_ = bias.to(at::kFloat);
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeGatedOutput(tensors, prefix,
                                                         {.head_count = heads,
                                                          .head_dim = config.value_dim,
                                                          .hidden_size = width,
                                                          .norm = "o_norm",
                                                          .norm_epsilon = config.sizes.norm_epsilon,
                                                          .gate = config.output_gate,
                                                          .activation = config.gate_activation}));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DeltaRecurrence", config_.value_head_count, config_.value_dim,
                           config_.key_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const double scale = 1 / std::sqrt(static_cast<double>(config_.key_dim));
    const double most = config_.negative_eigenvalues ? 2 : 1;
    const at::Tensor wide = x.to(at::kFloat);  // Of the gates.
    const at::Tensor delta = at::softplus(alpha_(wide).add_(time_step_bias_));
    const DeltaScanInputs scan = {
        .head_count = config_.value_head_count,
        .queries = UnitLength(query_.Features(x, config_.key_dim)).mul(scale),
        .keys = UnitLength(key_.Features(x, config_.key_dim)),
        .values = value_.Heads(x, config_.value_dim),
        .beta = beta_(wide).sigmoid_().mul_(most).unsqueeze(2),
        .log_alpha = delta.mul(A_).unsqueeze(2)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, DeltaScan(scan, mixer, pass));
    return y.defined() ? output_(y, x) : y;
  }

 private:
  GatedDeltanetConfig config_;
  ConvolvedProjection query_, key_, value_;
  Linear alpha_, beta_;        // [H, D]
  at::Tensor A_;               // [H]
  at::Tensor time_step_bias_;  // [H]
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateGatedDeltanet(const ConfigReader& config,
                                                                   TensorSource& tensors,
                                                                   const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const GatedDeltanetConfig delta, ReadGatedDeltanet(config));
  return MakeFlaDecoder("gated_deltanet", config, delta.sizes, tensors, device,
                        [&](const std::string& prefix, int64_t) {
                          return GatedDeltanetMixer::Take(tensors, delta, prefix);
                        });
}

absl::StatusOr<InitialWeights> GatedDeltanetInitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(
      config, {},
      {{.names = "*.A_log", .distribution = LogOfUniform(0, 16)},
       {.names = "*.dt_bias", .distribution = SoftplusInverseOfLogUniform(1e-3, 1e-1, 1e-4)}});
}

// Value heads that share queries and keys.
nlohmann::json TinyGatedDeltanetConfig() {
  return {{"model_type", "gated_deltanet"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"conv_size", 3},
          {"num_hidden_layers", 3},
          {"num_heads", 2},
          {"num_v_heads", 4},
          {"head_dim", 6}};
}

}  // namespace

Architecture GatedDeltanetArchitecture() {
  return FlaArchitecture("gated_deltanet", CreateGatedDeltanet, TinyGatedDeltanetConfig,
                         GatedDeltanetInitialWeights);
}

}  // namespace ess::models
