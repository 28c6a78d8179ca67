#include "server/models/mamba2.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/selective_scan.h"
#include "server/models/mamba_decoder.h"
#include "server/operators/diagonal_recurrence.h"

namespace ess::models {
namespace {

struct Mamba2Config {
  MambaSizes sizes;
  int64_t head_count = 0;   // H
  int64_t head_dim = 0;     // d
  int64_t group_count = 0;  // G: heads share B and C.
  std::pair<double, double> time_step_limit;
  ActivationInPlace activation = nullptr;

  int64_t convolved() const {  // x, B and C.
    return sizes.intermediate_size + 2 * group_count * sizes.state_size;
  }
};

absl::StatusOr<Mamba2Config> ReadMamba2Config(const ConfigReader& config) {
  Mamba2Config mamba;
  ESS_ASSIGN_OR_RETURN(mamba.sizes, ReadMambaSizes(config, {.vocabulary_size = 32768,
                                                            .hidden_size = 4096,
                                                            .state_size = 128,
                                                            .layer_count = 64}));
  ESS_ASSIGN_OR_RETURN(mamba.head_count, config.Size("num_heads", 128));
  ESS_ASSIGN_OR_RETURN(mamba.head_dim, config.Size("head_dim", 64));
  ESS_ASSIGN_OR_RETURN(mamba.group_count, config.Size("n_groups", 8));
  if (mamba.head_count * mamba.head_dim != mamba.sizes.intermediate_size) {
    return ConfigContradiction(
        fmt::format("num_heads * head_dim is {}, not expand * hidden_size = {}",
                    mamba.head_count * mamba.head_dim, mamba.sizes.intermediate_size));
  }
  if (mamba.head_count % mamba.group_count != 0) {
    return ConfigContradiction(fmt::format("num_heads is {}, not a multiple of n_groups = {}",
                                           mamba.head_count, mamba.group_count));
  }
  if (mamba.sizes.state_size > kMaxConfigSize / mamba.group_count) {
    return config.Unsupported("state_size",
                              fmt::format("n_groups * state_size up to {}", kMaxConfigSize));
  }
  ESS_ASSIGN_OR_RETURN(mamba.time_step_limit, config.Bounds("time_step_limit"));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "silu", ActivationNames()));
  mamba.activation = FindActivation(activation);
  return mamba;
}

class HeadScanMixer final : public MambaMixer {
 public:
  static absl::StatusOr<std::unique_ptr<MambaMixer>> Take(TensorSource& tensors,
                                                          const Mamba2Config& config,
                                                          const std::string& prefix) {
    const MambaSizes& sizes = config.sizes;
    auto mixer = std::make_unique<HeadScanMixer>();
    mixer->config_ = config;
    const int64_t rows = sizes.intermediate_size + config.convolved() + config.head_count;
    ESS_ASSIGN_OR_RETURN(mixer->input_, TakeLinear(tensors, prefix + "in_proj", rows,
                                                   sizes.hidden_size, sizes.projection_bias));
    ESS_ASSIGN_OR_RETURN(mixer->convolution_,
                         TakeCausalConvolution(tensors, prefix + "conv1d", config.convolved(),
                                               sizes.convolution_taps, sizes.convolution_bias));
    const auto take_per_head = [&](const std::string& name) -> absl::StatusOr<at::Tensor> {
      ESS_ASSIGN_OR_RETURN(const at::Tensor taken,
                           tensors.Take(prefix + name, {config.head_count}));
      return taken.to(at::kFloat);
    };
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates, take_per_head("A_log"));
    mixer->A_ = log_rates.exp().neg();
    ESS_ASSIGN_OR_RETURN(mixer->skip_, take_per_head("D"));
    ESS_ASSIGN_OR_RETURN(mixer->time_step_bias_, take_per_head("dt_bias"));
    ESS_ASSIGN_OR_RETURN(mixer->norm_weight_,
                         tensors.Take(prefix + "norm.weight", {sizes.intermediate_size}));
    ESS_ASSIGN_OR_RETURN(mixer->output_,
                         TakeLinear(tensors, prefix + "out_proj", sizes.hidden_size,
                                    sizes.intermediate_size, sizes.projection_bias));
    return mixer;
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& u, int64_t mixer,
                                 ForwardPass& pass) const override {
    const int64_t width = config_.sizes.intermediate_size;
    const at::Tensor projected = input_(u);  // Gate, [x B C], time steps.
    at::Tensor convolved = convolution_(projected.narrow(1, width, config_.convolved()));
    config_.activation(convolved);
    const HeadScanInputs scan =
        MakeScan(convolved, projected.narrow(1, width + config_.convolved(), config_.head_count));
    if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(scan, mixer, pass));
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(at::Tensor y, RunHeadScan(scan, pass));  // [L, H, d]
    y.addcmul_(scan.x.to(at::kFloat), skip_.unsqueeze(1));
    return output_(
        GatedNorm(y.view({u.size(0), width}), projected.narrow(1, 0, width)).to(u.scalar_type()));
  }

 private:
  HeadScanInputs MakeScan(const at::Tensor& convolved, const at::Tensor& time_steps) const {
    const int64_t length = convolved.size(0);
    const int64_t width = config_.sizes.intermediate_size;
    const int64_t shared = config_.group_count * config_.sizes.state_size;
    const auto groups = [&](int64_t first) {
      return convolved.narrow(1, first, shared)
          .reshape({length, config_.group_count, -1})
          .to(at::kFloat);
    };
    const auto& [low, high] = config_.time_step_limit;
    return {.x = convolved.narrow(1, 0, width).reshape({length, config_.head_count, -1}),
            .delta = at::softplus(time_steps.to(at::kFloat) + time_step_bias_).clamp_(low, high),
            .A = A_,
            .B = groups(width),
            .C = groups(width + shared)};
  }

  // a_t = exp(delta_t A), b_t = delta_t B_t, c_t = C_t, in groups of heads of bounded size.
  absl::Status Capture(const HeadScanInputs& scan, int64_t mixer, ForwardPass& pass) const {
    const int64_t length = scan.x.size(0);
    const int64_t states = config_.sizes.state_size;
    const int64_t heads_per_group = config_.head_count / config_.group_count;
    const int64_t head_bytes = 2 * length * states * static_cast<int64_t>(sizeof(double));
    const int64_t most = std::clamp<int64_t>(kMaxMapBytes / head_bytes, 1, heads_per_group);
    const at::Tensor gates = scan.delta.mul(scan.A).exp_().t();  // [H, L]
    const at::Tensor delta = scan.delta.t();
    for (int64_t first = 0; first < config_.head_count;) {
      ESS_RETURN_IF_ERROR(pass.CheckCancellation());
      const int64_t group = first / heads_per_group;
      const int64_t count = std::min(most, (group + 1) * heads_per_group - first);
      const at::Tensor b = delta.narrow(0, first, count).unsqueeze(2) * scan.B.select(1, group);
      const operators::DiagonalRecurrence op(gates.narrow(0, first, count).unsqueeze(2), b,
                                             scan.C.select(1, group));
      ESS_RETURN_IF_ERROR(pass.Accept(mixer, first, op));
      first += count;
    }
    return absl::OkStatus();
  }

  // An RMS norm of each group of channels after the gate: y [L, E] float32 => [L, E].
  at::Tensor GatedNorm(const at::Tensor& y, const at::Tensor& gate) const {
    const at::Tensor gated = y.mul(at::silu(gate.to(at::kFloat)));
    const at::Tensor normal = WeightlessRmsNorm(gated.view({y.size(0), config_.group_count, -1}),
                                                config_.sizes.norm_epsilon);
    return norm_weight_ * normal.view(y.sizes()).to(gate.scalar_type());
  }

  Mamba2Config config_;
  Linear input_;                   // [E + convolved + H, D]
  CausalConvolution convolution_;  // Of x, B and C.
  at::Tensor A_;                   // [H]
  at::Tensor skip_;                // [H], "D" in the paper.
  at::Tensor time_step_bias_;      // [H]
  at::Tensor norm_weight_;         // [E]
  Linear output_;                  // [D, E]
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateMamba2(const ConfigReader& config,
                                                            TensorSource& tensors,
                                                            const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Mamba2Config mamba, ReadMamba2Config(config));
  const Mixer mixer{.name = {},
                    .operator_class = "DiagonalRecurrence",
                    .head_count = mamba.head_count,
                    .channels = {mamba.head_dim},
                    .state_size = operators::StateSize::Constant(mamba.sizes.state_size)};
  return MakeMambaDecoder(
      "mamba2", mamba.sizes, mixer, tensors, device,
      [&](const std::string& prefix) { return HeadScanMixer::Take(tensors, mamba, prefix); });
}

absl::StatusOr<InitialWeights> Mamba2InitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(InitialWeights weights,
                       ReadMambaInitialWeights(config, /*tied_head=*/false));
  ESS_ASSIGN_OR_RETURN(Distribution time_steps, ReadInitialTimeSteps(config));
  weights.rules.push_back({.names = "*.dt_bias", .distribution = std::move(time_steps)});
  return weights;
}

// Four heads in two groups.
nlohmann::json TinyMamba2Config() {
  return {{"model_type", "mamba2"}, {"vocab_size", 31}, {"hidden_size", 8}, {"state_size", 4},
          {"num_hidden_layers", 3}, {"expand", 2},      {"conv_kernel", 3}, {"num_heads", 4},
          {"head_dim", 4},          {"n_groups", 2},    {"use_bias", true}};
}

}  // namespace

Architecture Mamba2Architecture() {
  return {.model_type = "mamba2",
          .base_prefixes = {"backbone."},
          .ignored_suffixes = {},
          .create = CreateMamba2,
          .initial_weights = Mamba2InitialWeights,
          .tiny_config = TinyMamba2Config};
}

}  // namespace ess::models
