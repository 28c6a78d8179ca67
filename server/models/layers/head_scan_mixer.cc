#include "server/models/layers/head_scan_mixer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/selective_scan.h"
#include "server/operators/diagonal_recurrence.h"

namespace ess::models {
namespace {

class HeadScanMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const std::string& prefix,
                                                             const HeadScanConfig& config) {
    auto mixer = std::make_unique<HeadScanMixer>();
    mixer->config_ = config;
    const int64_t rows = config.width() + config.convolved() + config.head_count;
    ESS_ASSIGN_OR_RETURN(mixer->input_, TakeLinear(tensors, prefix + "in_proj", rows,
                                                   config.hidden_size, config.input_bias));
    ESS_ASSIGN_OR_RETURN(mixer->convolution_,
                         TakeCausalConvolution(tensors, prefix + "conv1d", config.convolved(),
                                               config.convolution_taps, config.convolution_bias));
    const auto take_per_head = [&](const std::string& name) -> absl::StatusOr<at::Tensor> {
      ESS_ASSIGN_OR_RETURN(const at::Tensor taken,
                           tensors.Take(prefix + name, {config.head_count}));
      return taken.to(at::kFloat);
    };
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_rates, take_per_head("A_log"));
    mixer->A_ = log_rates.exp().neg();
    ESS_ASSIGN_OR_RETURN(mixer->skip_, take_per_head("D"));
    ESS_ASSIGN_OR_RETURN(mixer->time_step_bias_, take_per_head("dt_bias"));
    if (config.norm != ScanOutputNorm::kNone) {
      ESS_ASSIGN_OR_RETURN(mixer->norm_weight_,
                           tensors.Take(prefix + "norm.weight", {config.width()}));
    }
    ESS_ASSIGN_OR_RETURN(
        mixer->output_, TakeLinear(tensors, prefix + "out_proj", config.hidden_size, config.width(),
                                   config.output_bias));
    mixer->SpreadMultipliers();
    return mixer;
  }

  Mixer Describe() const override {
    return {.operator_class = "DiagonalRecurrence",
            .head_count = config_.head_count,
            .channels = {config_.head_dim},
            .state_size = operators::StateSize::Constant(config_.state_size)};
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& u, const RotaryTable&, int64_t mixer,
                                 ForwardPass& pass) const override {
    const int64_t width = config_.width();
    at::Tensor projected = input_(u.to(at::kFloat));  // Gate, [x B C], time steps.
    if (multipliers_.defined()) projected.mul_(multipliers_);
    at::Tensor convolved = convolution_(projected.narrow(1, width, config_.convolved()));
    config_.activation(convolved);
    const HeadScanInputs scan =
        MakeScan(convolved, projected.narrow(1, width + config_.convolved(), config_.head_count));
    if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(scan, mixer, pass));
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(at::Tensor y, RunHeadScan(scan, pass));  // [L, H, d]
    y.addcmul_(scan.x, skip_.unsqueeze(1));
    return output_(
        GatedNorm(y.view({u.size(0), width}), projected.narrow(1, 0, width)).to(u.scalar_type()));
  }

 private:
  // The multiplier of each row of the input projection, where they are not all 1.
  void SpreadMultipliers() {
    const std::array<double, 5>& of = config_.multipliers;
    if (std::all_of(of.begin(), of.end(), [](double one) { return one == 1; })) return;
    const int64_t shared = config_.group_count * config_.state_size;
    const int64_t sizes[] = {config_.width(), config_.width(), shared, shared, config_.head_count};
    std::vector<at::Tensor> parts;
    for (size_t part = 0; part < of.size(); ++part) {
      parts.push_back(at::full({sizes[part]}, of[part], input_.weight.options().dtype(at::kFloat)));
    }
    multipliers_ = at::cat(parts);
  }

  HeadScanInputs MakeScan(const at::Tensor& convolved, const at::Tensor& time_steps) const {
    const int64_t length = convolved.size(0);
    const int64_t width = config_.width();
    const int64_t shared = config_.group_count * config_.state_size;
    const auto groups = [&](int64_t first) {
      return convolved.narrow(1, first, shared).reshape({length, config_.group_count, -1});
    };
    const auto& [low, high] = config_.time_step_limit;
    return {.x = convolved.narrow(1, 0, width).reshape({length, config_.head_count, -1}),
            .delta = at::softplus(time_steps + time_step_bias_).clamp_(low, high),
            .A = A_,
            .B = groups(width),
            .C = groups(width + shared)};
  }

  // a_t = exp(delta_t A), b_t = delta_t B_t, c_t = C_t, in groups of heads of bounded size.
  absl::Status Capture(const HeadScanInputs& scan, int64_t mixer, ForwardPass& pass) const {
    const int64_t length = scan.x.size(0);
    const int64_t states = config_.state_size;
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

  // y, gate [L, E] float32 => [L, E].
  at::Tensor GatedNorm(const at::Tensor& y, const at::Tensor& gate) const {
    const at::Tensor opening = at::silu(gate);
    const auto norm = [&](const at::Tensor& x) {
      const at::Tensor normal =
          WeightlessRmsNorm(x.view({x.size(0), config_.group_count, -1}), config_.norm_epsilon);
      return normal.view(x.sizes());
    };
    switch (config_.norm) {
      case ScanOutputNorm::kNone:
        return y.mul(opening);
      case ScanOutputNorm::kGateFirst:
        return norm(y.mul(opening)).mul_(norm_weight_);
      case ScanOutputNorm::kNormFirst:
        return norm(y).mul_(norm_weight_).mul_(opening);
    }
    return y;
  }

  HeadScanConfig config_;
  Linear input_;                   // [E + convolved + H, D]
  at::Tensor multipliers_;         // [E + convolved + H], or undefined.
  CausalConvolution convolution_;  // Of x, B and C.
  at::Tensor A_;                   // [H]
  at::Tensor skip_;                // [H], "D" in the paper.
  at::Tensor time_step_bias_;      // [H]
  at::Tensor norm_weight_;         // [E], or undefined.
  Linear output_;                  // [D, E]
};

}  // namespace

absl::Status CheckHeadScan(const ConfigReader& config, const HeadScanConfig& scan, int64_t width,
                           std::string_view width_name, const HeadScanKeys& keys) {
  if (scan.width() != width) {
    return config.Contradiction(
        fmt::format("{} * {} is {}, not {} = {}", config.Name(keys.head_count),
                    config.Name(keys.head_dim), scan.width(), width_name, width));
  }
  ESS_RETURN_IF_ERROR(
      config.CheckMultiple(keys.head_count, scan.head_count, keys.group_count, scan.group_count));
  return config.SizeTimes(keys.state_size, scan.state_size, keys.group_count, scan.group_count)
      .status();
}

absl::Status ReadPrefixedHeadScan(const ConfigReader& config, std::string_view width_key,
                                  int64_t default_width, HeadScanConfig& scan) {
  constexpr HeadScanKeys kKeys = {.head_count = "mamba_n_heads",
                                  .head_dim = "mamba_d_head",
                                  .group_count = "mamba_n_groups",
                                  .state_size = "mamba_d_state"};
  ESS_ASSIGN_OR_RETURN(int64_t width,
                       config.SizeTimes("mamba_expand", 2, "hidden_size", scan.hidden_size));
  const bool expands = width_key.empty() || config.IsNull(width_key);
  if (!expands) {
    ESS_ASSIGN_OR_RETURN(width, config.Size(width_key, default_width));
  }
  ESS_ASSIGN_OR_RETURN(scan.head_count, config.Size(kKeys.head_count, 128));
  const bool automatic = config.String(kKeys.head_dim, "auto").value_or("") == "auto";
  const int64_t shared_out = std::max<int64_t>(width / scan.head_count, 1);
  ESS_ASSIGN_OR_RETURN(scan.head_dim, automatic ? absl::StatusOr<int64_t>(shared_out)
                                                : config.Size(kKeys.head_dim, std::nullopt));
  ESS_ASSIGN_OR_RETURN(scan.group_count, config.Size(kKeys.group_count, 1));
  ESS_ASSIGN_OR_RETURN(scan.state_size, config.Size(kKeys.state_size, 256));
  ESS_RETURN_IF_ERROR(CheckHeadScan(config, scan, width,
                                    expands ? "mamba_expand * hidden_size" : width_key, kKeys));
  ESS_ASSIGN_OR_RETURN(scan.convolution_taps, config.Size("mamba_d_conv", 4));
  ESS_ASSIGN_OR_RETURN(scan.convolution_bias, config.Bool("mamba_conv_bias", true));
  ESS_ASSIGN_OR_RETURN(scan.input_bias, config.Bool("mamba_proj_bias", false));
  ESS_ASSIGN_OR_RETURN(scan.time_step_limit, config.Bounds("time_step_limit"));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeHeadScanMixer(TensorSource& tensors,
                                                                 const std::string& prefix,
                                                                 const HeadScanConfig& config) {
  return HeadScanMixer::Take(tensors, prefix, config);
}

}  // namespace ess::models
