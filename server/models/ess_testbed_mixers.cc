#include "server/models/ess_testbed_mixers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/layers/selective_scan.h"
#include "server/operators/selective_scan.h"

namespace ess::models {
namespace {

constexpr int64_t kDefaultS6States = 16;

// x [L, H w] => [L, H, w]
at::Tensor ByHead(const at::Tensor& x, int64_t head_count) {
  return x.view({x.size(0), head_count, -1});
}

// What forms the operators is float32 for weights of any dtype.
at::Tensor Features(const Linear& projection, const at::Tensor& x) {
  return projection(x.to(at::kFloat));
}

// x [L, H, w] => contiguous [H, L, w]
at::Tensor Rotated(const at::Tensor& x, const TestbedMixerConfig& config) {
  const RotaryScaling scaling = {.head_dim = x.size(2), .theta = config.rotary_theta};
  return RotateHeads(x, MakeRotaryTable(scaling, x.size(0), x.device()));
}

// What the features of every kind read: c (queries) and b (keys).
struct Projections {
  Linear query, key;

  static absl::StatusOr<Projections> Take(TensorSource& tensors, const std::string& prefix,
                                          int64_t outputs, int64_t inputs) {
    Projections taken;
    ESS_ASSIGN_OR_RETURN(taken.query,
                         TakeLinear(tensors, prefix + "q_proj", outputs, inputs, /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(taken.key,
                         TakeLinear(tensors, prefix + "k_proj", outputs, inputs, /*bias=*/false));
    return taken;
  }
};

class SoftmaxAttention final : public TestbedMixer {
 public:
  SoftmaxAttention(const TestbedMixerConfig& config, Projections projections)
      : config_(config), projections_(std::move(projections)) {}

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const at::Tensor& values, int64_t mixer,
                                 ForwardPass& pass) const override {
    const auto rotated = [&](const Linear& projection) {
      return Rotated(ByHead(Features(projection, x), config_.head_count), config_);
    };
    return CausalAttention({.queries = rotated(projections_.query),
                            .keys = rotated(projections_.key),
                            .values = ByHead(values, config_.head_count).transpose(0, 1),
                            .scale = config_.attention_scale},
                           mixer, pass);
  }

 private:
  const TestbedMixerConfig config_;
  const Projections projections_;  // [D, D]
};

// LA, WLA, GLA and GLA-S6: h_t = a_t * h_{t-1} + b_t u_t^T of each head. They differ in a_t.
class HeadRecurrence final : public TestbedMixer {
 public:
  static absl::StatusOr<std::unique_ptr<TestbedMixer>> Take(TensorSource& tensors,
                                                            const TestbedMixerConfig& config,
                                                            TestbedMixerKind kind,
                                                            const std::string& prefix) {
    const int64_t states = config.StatesOf(kind);
    const int64_t outputs = config.head_count * states;
    auto mixer = std::make_unique<HeadRecurrence>();
    mixer->config_ = config;
    mixer->kind_ = kind;
    ESS_ASSIGN_OR_RETURN(mixer->projections_,
                         Projections::Take(tensors, prefix, outputs, config.hidden_size));
    if (kind == TestbedMixerKind::kWLA) {
      ESS_ASSIGN_OR_RETURN(const at::Tensor gates,
                           tensors.Take(prefix + "A", {config.head_count, states}));
      mixer->fixed_log_gates_ = at::log_sigmoid(gates.to(at::kFloat)).div_(config.beta);
    }
    if (kind == TestbedMixerKind::kGLA || kind == TestbedMixerKind::kGLAS6) {
      ESS_ASSIGN_OR_RETURN(mixer->gate_down_,
                           TakeLinear(tensors, prefix + "gk_proj.0", config.gate_rank,
                                      config.hidden_size, /*bias=*/false));
      ESS_ASSIGN_OR_RETURN(mixer->gate_up_, TakeLinear(tensors, prefix + "gk_proj.1", outputs,
                                                       config.gate_rank, /*bias=*/false));
    }
    return mixer;
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const at::Tensor& values, int64_t mixer,
                                 ForwardPass& pass) const override {
    const GatedScanInputs scan = {
        .head_count = config_.head_count,
        .queries = Heads(projections_.query, x).mul_(config_.recurrence_scale),
        .keys = Heads(projections_.key, x),
        .values = ByHead(values, config_.head_count),
        .log_gates = LogGates(x)};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));  // [L, H, d]
    return y.defined() ? y.view(x.sizes()).to(x.scalar_type()) : y;
  }

 private:
  // [L, D] => [L, H, N]
  at::Tensor Heads(const Linear& projection, const at::Tensor& x) const {
    const at::Tensor heads = ByHead(Features(projection, x), config_.head_count);
    return kind_ == TestbedMixerKind::kLA ? Rotated(heads, config_).transpose(0, 1) : heads;
  }

  // [L, H, N] float32; of LA [L, 1, 1].
  at::Tensor LogGates(const at::Tensor& x) const {
    if (kind_ == TestbedMixerKind::kLA) {
      return at::zeros({x.size(0), 1, 1}, x.options().dtype(at::kFloat));
    }
    if (kind_ == TestbedMixerKind::kWLA) {
      return fixed_log_gates_.unsqueeze(0).expand({x.size(0), -1, -1});
    }
    const at::Tensor features = ByHead(gate_up_(Features(gate_down_, x)), config_.head_count);
    if (kind_ == TestbedMixerKind::kGLA) return at::log_sigmoid(features).div_(config_.beta);
    const at::Tensor rates =
        at::arange(1, features.size(2) + 1, features.options()).div_(-config_.alpha);
    return at::softplus(features).mul_(rates);
  }

  TestbedMixerConfig config_;
  TestbedMixerKind kind_ = TestbedMixerKind::kLA;
  Projections projections_;     // [H N, D]
  at::Tensor fixed_log_gates_;  // WLA: [H, N]
  Linear gate_down_, gate_up_;  // GLA, GLA-S6: [rank, D], [H N, rank]
};

// S6: a recurrence of its own for every channel, with b_t and c_t that all share.
class ChannelRecurrence final : public TestbedMixer {
 public:
  static absl::StatusOr<std::unique_ptr<TestbedMixer>> Take(TensorSource& tensors,
                                                            const TestbedMixerConfig& config,
                                                            const std::string& prefix) {
    const int64_t states = config.StatesOf(TestbedMixerKind::kS6);
    const int64_t width = config.hidden_size;
    auto mixer = std::make_unique<ChannelRecurrence>();
    mixer->scale_ = config.recurrence_scale;
    ESS_ASSIGN_OR_RETURN(mixer->projections_, Projections::Take(tensors, prefix, states, width));
    ESS_ASSIGN_OR_RETURN(mixer->time_step_,
                         TakeLinear(tensors, prefix + "dt_proj", width, width, /*bias=*/true));
    ESS_ASSIGN_OR_RETURN(const at::Tensor rates, tensors.Take(prefix + "A", {states}));
    mixer->A_ = rates.to(at::kFloat).neg();
    return mixer;
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const at::Tensor& values, int64_t mixer,
                                 ForwardPass& pass) const override {
    const ScanInputs scan = {.x = values,
                             .delta = at::softplus(Features(time_step_, x)),
                             .A = A_.expand({values.size(1), -1}),
                             .B = Features(projections_.key, x),
                             .C = Features(projections_.query, x).mul_(scale_)};
    if (pass.Wants(mixer)) {
      const operators::SelectiveScan op(scan.delta.t(), A_, scan.B, scan.C);
      ESS_RETURN_IF_ERROR(pass.Accept(mixer, /*first_head=*/0, op));
    }
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, RunSelectiveScan(scan, pass));
    return y.to(x.scalar_type());
  }

 private:
  double scale_ = 1;
  Projections projections_;  // [N, D]
  Linear time_step_;         // [D, D]
  at::Tensor A_;             // [N], negative: a_t = exp(delta_t A).
};

absl::Status ReadKinds(const ConfigReader& config, TestbedMixerConfig& mixers) {
  const std::vector<std::string> names = TestbedMixerNames();
  ESS_ASSIGN_OR_RETURN(const int64_t layers,
                       config.Size("num_hidden_layers", std::nullopt, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(const std::vector<std::string> chosen,
                       config.Choices("mixers", layers, names));
  for (const std::string& name : chosen) {
    const auto place = std::find(names.begin(), names.end(), name);
    const auto kind = static_cast<TestbedMixerKind>(place - names.begin());
    const bool rotates = kind == TestbedMixerKind::kSA || kind == TestbedMixerKind::kLA;
    if (rotates && mixers.StatesOf(kind) % 2 != 0) {
      const bool given = mixers.state_size.has_value() && kind != TestbedMixerKind::kSA;
      return config.Contradiction(fmt::format(
          "{} is {}, but queries of {} rotate in pairs",
          given ? "state_size" : "hidden_size / num_attention_heads", mixers.StatesOf(kind), name));
    }
    mixers.kinds.push_back(kind);
  }
  return absl::OkStatus();
}

Mixer DescribeMixer(const TestbedMixerConfig& config, int64_t layer_index) {
  const TestbedMixerKind kind = config.kinds[static_cast<size_t>(layer_index)];
  Mixer described{.name = MixerName(layer_index),
                  .layer_index = layer_index,
                  .operator_class = "DiagonalRecurrence",
                  .head_count = config.head_count,
                  .channels = {config.head_dim},
                  .state_size = operators::StateSize::Constant(config.StatesOf(kind))};
  if (kind == TestbedMixerKind::kSA) {
    described.operator_class = "DenseOperator";
    described.state_size = operators::StateSize::Growing();
  } else if (kind == TestbedMixerKind::kS6) {
    described.operator_class = "SelectiveScan";
    described.head_count = config.hidden_size;
    described.channels = {1};
  }
  return described;
}

}  // namespace

std::vector<std::string> TestbedMixerNames() { return {"SA", "LA", "WLA", "GLA", "S6", "GLA-S6"}; }

int64_t TestbedMixerConfig::StatesOf(TestbedMixerKind kind) const {
  if (kind == TestbedMixerKind::kSA) return head_dim;
  return state_size.value_or(kind == TestbedMixerKind::kS6 ? kDefaultS6States : head_dim);
}

absl::StatusOr<TestbedMixerConfig> ReadTestbedMixers(const ConfigReader& config) {
  TestbedMixerConfig mixers;
  ESS_ASSIGN_OR_RETURN(mixers.hidden_size, config.Size("hidden_size", 128));
  ESS_ASSIGN_OR_RETURN(mixers.head_count, config.Size("num_attention_heads", 8));
  ESS_RETURN_IF_ERROR(config.CheckMultiple("hidden_size", mixers.hidden_size, "num_attention_heads",
                                           mixers.head_count));
  mixers.head_dim = mixers.hidden_size / mixers.head_count;
  if (config.Has("state_size")) {
    ESS_ASSIGN_OR_RETURN(mixers.state_size, config.Size("state_size", std::nullopt));
    if (*mixers.state_size > kMaxConfigSize / mixers.head_count) {
      return config.Unsupported(
          "state_size", fmt::format("num_attention_heads * state_size up to {}", kMaxConfigSize));
    }
  }
  ESS_ASSIGN_OR_RETURN(mixers.attention_scale,
                       config.Number("attention_scale",
                                     1 / std::sqrt(static_cast<double>(mixers.head_dim)), 0, 1e6));
  ESS_ASSIGN_OR_RETURN(mixers.recurrence_scale, config.Number("recurrence_scale", 1, 0, 1e6));
  ESS_ASSIGN_OR_RETURN(mixers.rotary_theta, config.Number("rope_theta", 10000, 1e-6, 1e12));
  ESS_ASSIGN_OR_RETURN(mixers.gate_rank, config.Size("gate_rank", 16));
  ESS_ASSIGN_OR_RETURN(mixers.beta, config.Number("beta", 16, 1e-6, 1e12));
  ESS_ASSIGN_OR_RETURN(mixers.alpha, config.Number("alpha", 1000, 1e-6, 1e12));
  ESS_RETURN_IF_ERROR(ReadKinds(config, mixers));
  return mixers;
}

absl::StatusOr<std::unique_ptr<TestbedMixer>> TakeTestbedMixer(TensorSource& tensors,
                                                               const TestbedMixerConfig& config,
                                                               TestbedMixerKind kind,
                                                               const std::string& prefix) {
  if (kind == TestbedMixerKind::kSA) {
    ESS_ASSIGN_OR_RETURN(
        Projections projections,
        Projections::Take(tensors, prefix, config.hidden_size, config.hidden_size));
    return std::make_unique<SoftmaxAttention>(config, std::move(projections));
  }
  if (kind == TestbedMixerKind::kS6) return ChannelRecurrence::Take(tensors, config, prefix);
  return HeadRecurrence::Take(tensors, config, kind, prefix);
}

std::vector<Mixer> DescribeTestbedMixers(const TestbedMixerConfig& config) {
  std::vector<Mixer> mixers;
  for (size_t layer = 0; layer < config.kinds.size(); ++layer) {
    mixers.push_back(DescribeMixer(config, static_cast<int64_t>(layer)));
  }
  return mixers;
}

}  // namespace ess::models
