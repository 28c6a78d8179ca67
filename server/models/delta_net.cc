#include "server/models/delta_net.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/convolved_projection.h"
#include "server/models/layers/delta_scan.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/unit_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

void EluPlusOneInPlace(at::Tensor& x) { at::elu_(x).add_(1); }

struct DeltaNetConfig {
  FlaSizes sizes;
  FlaHeads heads;
  int64_t convolution_taps = 0;            // 0: no short convolutions.
  ActivationInPlace activation = nullptr;  // Of queries and keys; null: none.
  bool unit_length = true;                 // Queries and keys; else unit absolute sums.
  bool learns_beta = true;                 // Else it is 1.
  bool negative_eigenvalues = false;       // beta up to 2.
  bool output_gate = false;
};

absl::StatusOr<ActivationInPlace> ReadQueryKeyActivation(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const std::string name,
                       config.Choice("qk_activation", "silu", {"silu", "relu", "elu", "identity"}));
  if (name == "identity") return nullptr;
  return name == "elu" ? EluPlusOneInPlace : FindActivation(name);
}

absl::StatusOr<DeltaNetConfig> ReadDeltaNet(const ConfigReader& config) {
  DeltaNetConfig delta;
  ESS_ASSIGN_OR_RETURN(delta.sizes, ReadFlaSizes(config, {}));
  ESS_ASSIGN_OR_RETURN(delta.heads, ReadFlaHeads(config, delta.sizes.hidden_size,
                                                 {.count = 16, .expand_k = 1, .expand_v = 1}));
  if (delta.heads.groups != delta.heads.count) {
    return config.Unsupported("num_kv_heads", "as many as num_heads");
  }
  ESS_ASSIGN_OR_RETURN(delta.convolution_taps, ReadShortConvolution(config, true));
  ESS_ASSIGN_OR_RETURN(delta.activation, ReadQueryKeyActivation(config));
  ESS_ASSIGN_OR_RETURN(const std::string norm, config.Choice("qk_norm", "l2", {"l2", "sum"}));
  delta.unit_length = norm != "sum";
  ESS_ASSIGN_OR_RETURN(delta.learns_beta, config.Bool("use_beta", true));
  ESS_ASSIGN_OR_RETURN(delta.negative_eigenvalues, config.Bool("allow_neg_eigval", false));
  ESS_ASSIGN_OR_RETURN(delta.output_gate, config.Bool("use_gate", false));
  return delta;
}

class DeltaMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const DeltaNetConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<DeltaMixer>();
    mixer->config_ = config;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const auto take = [&](const std::string& name, int64_t head_dim, ActivationInPlace activation) {
      return TakeConvolvedProjection(tensors, prefix + name, heads.count * head_dim, width,
                                     config.convolution_taps, activation);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q", heads.key_dim, config.activation));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k", heads.key_dim, config.activation));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v", heads.value_dim, FindActivation("silu")));
    if (config.learns_beta) {
      ESS_ASSIGN_OR_RETURN(mixer->beta_, TakeLinear(tensors, prefix + "b_proj", heads.count, width,
                                                    /*bias=*/false));
    }
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeGatedOutput(tensors, prefix,
                                                         {.head_count = heads.count,
                                                          .head_dim = heads.value_dim,
                                                          .hidden_size = width,
                                                          .norm = "o_norm",
                                                          .norm_epsilon = config.sizes.norm_epsilon,
                                                          .gate = config.output_gate,
                                                          .activation = FindActivation("silu")}));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DeltaRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.heads.key_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const FlaHeads& heads = config_.heads;
    const auto features = [&](const ConvolvedProjection& projection) {  // [L, H, N]
      const at::Tensor raw = projection.Features(x, heads.key_dim);
      return config_.unit_length ? UnitLength(raw) : UnitAbsoluteSum(raw);
    };
    const double scale = 1 / std::sqrt(static_cast<double>(heads.key_dim));
    const auto float_options = x.options().dtype(at::kFloat);
    const DeltaScanInputs scan = {.head_count = heads.count,
                                  .queries = features(query_).mul(scale),
                                  .keys = features(key_),
                                  .values = value_.Heads(x, heads.value_dim),
                                  .beta = Beta(x),
                                  .log_alpha = at::zeros({x.size(0), 1, 1}, float_options)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, DeltaScan(scan, mixer, pass));
    return y.defined() ? output_(y, x) : y;
  }

 private:
  // [L, D] => [L, H, 1]
  at::Tensor Beta(const at::Tensor& x) const {
    const double most = config_.negative_eigenvalues ? 2 : 1;
    if (!beta_.has_value()) return at::full({x.size(0), 1, 1}, most, x.options().dtype(at::kFloat));
    return (*beta_)(x.to(at::kFloat)).sigmoid_().mul_(most).unsqueeze(2);
  }

  DeltaNetConfig config_;
  ConvolvedProjection query_, key_, value_;
  std::optional<Linear> beta_;  // [H, D]
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateDeltaNet(const ConfigReader& config,
                                                              TensorSource& tensors,
                                                              const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const DeltaNetConfig delta, ReadDeltaNet(config));
  return MakeFlaDecoder(
      "delta_net", config, delta.sizes, tensors, device,
      [&](const std::string& prefix, int64_t) { return DeltaMixer::Take(tensors, delta, prefix); });
}

// Short convolutions and an output gate.
nlohmann::json TinyDeltaNetConfig() {
  return {{"model_type", "delta_net"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_heads", 4},
          {"conv_size", 3},
          {"use_gate", true}};
}

}  // namespace

Architecture DeltaNetArchitecture() {
  return FlaArchitecture("delta_net", CreateDeltaNet, TinyDeltaNetConfig);
}

}  // namespace ess::models
