#include "server/models/retnet.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct RetnetConfig {
  FlaSizes sizes;
  FlaHeads heads;
  ActivationInPlace feature_map = nullptr;  // Of queries and keys; null: none.
  GatedOutputLayout output;
};

// `use_short_conv` has no effect: the public block does not hand it to its layer.
absl::StatusOr<RetnetConfig> ReadRetnet(const ConfigReader& config) {
  RetnetConfig retnet;
  ESS_ASSIGN_OR_RETURN(retnet.sizes, ReadFlaSizes(config, {.hidden_ratio = 2}));
  ESS_ASSIGN_OR_RETURN(retnet.heads, ReadFlaHeads(config, retnet.sizes.hidden_size,
                                                  {.count = 8, .expand_k = 1, .expand_v = 2}));
  if (retnet.heads.key_dim % 2 != 0) {
    return config.Contradiction(
        fmt::format("heads have keys of {} dimensions (hidden_size * expand_k / num_heads), which "
                    "rotate in pairs",
                    retnet.heads.key_dim));
  }
  if (config.Has("feature_map")) {
    ESS_ASSIGN_OR_RETURN(const std::string name,
                         config.Choice("feature_map", std::nullopt, ActivationNames()));
    retnet.feature_map = FindActivation(name);
  }
  ESS_ASSIGN_OR_RETURN(retnet.output, ReadFlaOutput(config, retnet.sizes, retnet.heads));
  return retnet;
}

class RetentionMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const RetnetConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<RetentionMixer>();
    mixer->config_ = config;
    mixer->rotary_.head_dim = config.heads.key_dim;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const auto take = [&](const std::string& name, int64_t outputs) {
      return TakeLinear(tensors, prefix + name, outputs, width, /*bias=*/false);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q_proj", heads.count * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k_proj", heads.groups * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v_proj", heads.groups * heads.value_dim));
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeGatedOutput(tensors, prefix, config.output));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.heads.key_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    const FlaHeads& heads = config_.heads;
    const at::Tensor wide = x.to(at::kFloat);  // Of queries and keys.
    const RotaryTable rotary = MakeRotaryTable(rotary_, x.size(0), x.device());
    const auto rotated = [&](const Linear& projection) {  // [L, D] => [L, heads, N]
      at::Tensor features = projection(wide).view({x.size(0), -1, heads.key_dim});
      if (config_.feature_map != nullptr) config_.feature_map(features);
      return RotateHeads(features, rotary).transpose(0, 1);
    };
    const GatedScanInputs scan = {
        .head_count = heads.count,
        .queries = rotated(query_).mul(1 / std::sqrt(static_cast<double>(heads.key_dim))),
        .keys = rotated(key_),
        .values = value_(x).view({x.size(0), -1, heads.value_dim}),
        .log_gates = LogGates(x)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));
    return y.defined() ? output_(y, x) : y;
  }

 private:
  // log(1 - 2^(-5 - h)) at every position: [L, H, 1].
  at::Tensor LogGates(const at::Tensor& x) const {
    const at::Tensor h = at::arange(config_.heads.count, x.options().dtype(at::kDouble));
    return at::log1p(at::exp2(-5 - h).neg())
        .to(at::kFloat)
        .view({1, -1, 1})
        .expand({x.size(0), -1, 1});
  }

  RetnetConfig config_;
  RotaryScaling rotary_;
  Linear query_, key_, value_;
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateRetnet(const ConfigReader& config,
                                                            TensorSource& tensors,
                                                            const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const RetnetConfig retnet, ReadRetnet(config));
  return MakeFlaDecoder("retnet", config, retnet.sizes, tensors, device,
                        [&](const std::string& prefix, int64_t) {
                          return RetentionMixer::Take(tensors, retnet, prefix);
                        });
}

// Shared keys and values.
nlohmann::json TinyRetnetConfig() {
  return {{"model_type", "retnet"},  {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24}, {"num_hidden_layers", 3}, {"num_heads", 4},
          {"num_kv_heads", 2}};
}

}  // namespace

Architecture RetnetArchitecture() {
  return FlaArchitecture("retnet", CreateRetnet, TinyRetnetConfig);
}

}  // namespace ess::models
