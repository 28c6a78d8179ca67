#include "server/models/hgrn2.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/convolved_projection.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct Hgrn2Config {
  FlaSizes sizes;
  int64_t head_count = 0;        // H
  int64_t head_dim = 0;          // N, and the width of values.
  int64_t convolution_taps = 0;  // 0: no short convolutions.
  bool lower_bounds = true;
  bool norm_weight = true;
};

absl::StatusOr<Hgrn2Config> ReadHgrn2(const ConfigReader& config) {
  Hgrn2Config hgrn2;
  ESS_ASSIGN_OR_RETURN(hgrn2.sizes, ReadFlaSizes(config, {}));
  const int64_t hidden_size = hgrn2.sizes.hidden_size;
  // `expand_ratio` wins over `num_heads`, as in the public layer.
  if (config.IsNull("expand_ratio")) {
    ESS_ASSIGN_OR_RETURN(hgrn2.head_count, config.Size("num_heads", std::nullopt));
    ESS_RETURN_IF_ERROR(
        config.CheckMultiple("hidden_size", hidden_size, "num_heads", hgrn2.head_count));
    hgrn2.head_dim = hidden_size / hgrn2.head_count;
  } else {
    ESS_ASSIGN_OR_RETURN(hgrn2.head_dim, config.Size("expand_ratio", 128));
    ESS_RETURN_IF_ERROR(
        config.CheckMultiple("hidden_size", hidden_size, "expand_ratio", hgrn2.head_dim));
    hgrn2.head_count = hidden_size / hgrn2.head_dim;
  }
  ESS_ASSIGN_OR_RETURN(hgrn2.convolution_taps, ReadShortConvolution(config, false));
  ESS_ASSIGN_OR_RETURN(hgrn2.lower_bounds, config.Bool("use_lower_bound", true));
  ESS_ASSIGN_OR_RETURN(hgrn2.norm_weight, config.Bool("elementwise_affine", true));
  return hgrn2;
}

class Hgrn2Mixer final : public SequenceMixer {
 public:
  // `lower_bound` [D] float32, or undefined: none.
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const Hgrn2Config& config,
                                                             const at::Tensor& lower_bound,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<Hgrn2Mixer>();
    mixer->config_ = config;
    mixer->lower_bound_ = lower_bound;
    const int64_t width = config.sizes.hidden_size;
    const auto take = [&](const std::string& name, ActivationInPlace activation) {
      return TakeConvolvedProjection(tensors, prefix + name, width, width, config.convolution_taps,
                                     activation);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q", FindActivation("silu")));
    ESS_ASSIGN_OR_RETURN(mixer->forget_, take("f", nullptr));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("i", nullptr));
    ESS_ASSIGN_OR_RETURN(
        mixer->output_, TakeGatedOutput(tensors, prefix, UngatedOutput(width, config.norm_weight)));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.head_count, config_.head_dim,
                           config_.head_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const int64_t head_dim = config_.head_dim;
    const at::Tensor log_gates = LogGates(forget_.Features(x, head_dim));
    const GatedScanInputs scan = {
        .head_count = config_.head_count,
        .queries = query_.Features(x, head_dim).mul(1 / std::sqrt(static_cast<double>(head_dim))),
        .keys = log_gates.expm1().neg_(),
        .values = value_.Heads(x, head_dim),
        .log_gates = log_gates};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));
    return y.defined() ? output_(y.view({x.size(0), 1, -1}), x) : y;
  }

 private:
  // log(b + (1 - b) sigmoid(f)), b the lower bound: [L, H, N].
  at::Tensor LogGates(const at::Tensor& forget) const {
    const at::Tensor open = at::log_sigmoid(forget);
    if (!lower_bound_.defined()) return open;
    const at::Tensor bound = lower_bound_.view({config_.head_count, config_.head_dim});
    return at::logaddexp(bound.log(), bound.neg().log1p_().add(open));
  }

  Hgrn2Config config_;
  at::Tensor lower_bound_;  // [D], or undefined.
  ConvolvedProjection query_, forget_, value_;
  GatedOutput output_;
};

// By layer [layers, D]: the share of a softmax over the layers that lies between the first layer
// and this one.
absl::StatusOr<at::Tensor> TakeLowerBounds(TensorSource& tensors, const Hgrn2Config& config) {
  if (!config.lower_bounds) return at::Tensor();
  ESS_ASSIGN_OR_RETURN(
      const at::Tensor stored,
      tensors.Take("lower_bounds", {config.sizes.layer_count, config.sizes.hidden_size}));
  const at::Tensor shares = at::softmax(stored, 0, at::kFloat);
  // Rounding may lead out of [0, 1], where the logarithms are NaN.
  return shares.cumsum(0).sub_(shares[0]).clamp_(0, 1);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateHgrn2(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Hgrn2Config hgrn2, ReadHgrn2(config));
  ESS_ASSIGN_OR_RETURN(const at::Tensor bounds, TakeLowerBounds(tensors, hgrn2));
  return MakeFlaDecoder(
      "hgrn2", config, hgrn2.sizes, tensors, device, [&](const std::string& prefix, int64_t layer) {
        // The first layer's bound is 0.
        const bool bounded = bounds.defined() && layer > 0;
        return Hgrn2Mixer::Take(tensors, hgrn2, bounded ? bounds[layer] : at::Tensor(), prefix);
      });
}

absl::StatusOr<InitialWeights> Hgrn2InitialWeights(const ConfigReader& config) {
  return ReadInitialWeights(config, {}, {{.names = "lower_bounds", .distribution = Constant(0)}});
}

nlohmann::json TinyHgrn2Config() {
  return {{"model_type", "hgrn2"},   {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24}, {"num_hidden_layers", 3}, {"expand_ratio", 4}};
}

}  // namespace

Architecture Hgrn2Architecture() {
  return FlaArchitecture("hgrn2", CreateHgrn2, TinyHgrn2Config, Hgrn2InitialWeights);
}

}  // namespace ess::models
