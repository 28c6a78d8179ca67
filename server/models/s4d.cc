#include "server/models/s4d.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/head_scan.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/model_description.h"
#include "server/operators/diagonal_recurrence.h"

namespace ess::models {
namespace {

struct S4dConfig {
  int64_t vocabulary_size = 0;  // V
  int64_t hidden_size = 0;      // D: one state space for each channel.
  int64_t mode_count = 0;       // N / 2 complex states, each for itself and its conjugate.
  int64_t layer_count = 0;
  bool bilinear = false;   // Else zero-order hold.
  bool norm_first = true;  // Else after the residual.
  double norm_epsilon = 0;
  ActivationInPlace activation = nullptr;
};

absl::StatusOr<S4dConfig> ReadS4d(const ConfigReader& config) {
  S4dConfig s4d;
  ESS_ASSIGN_OR_RETURN(s4d.vocabulary_size, config.Size("vocab_size", std::nullopt));
  ESS_ASSIGN_OR_RETURN(s4d.hidden_size, config.Size("hidden_size", std::nullopt));
  ESS_ASSIGN_OR_RETURN(const int64_t states, config.Size("state_size", 64));
  if (states % 2 != 0) return config.Unsupported("state_size", "even numbers");
  s4d.mode_count = states / 2;
  ESS_ASSIGN_OR_RETURN(s4d.layer_count, config.Size("num_hidden_layers", std::nullopt, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(const std::string discretization,
                       config.Choice("discretization", "zoh", {"zoh", "bilinear"}));
  s4d.bilinear = discretization == "bilinear";
  ESS_ASSIGN_OR_RETURN(s4d.norm_first, config.Bool("norm_first", true));
  ESS_ASSIGN_OR_RETURN(s4d.norm_epsilon, config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "gelu", ActivationNames()));
  s4d.activation = FindActivation(activation);
  return s4d;
}

// h_t = A h_{t-1} + B u_t, y_t = Re(C . h_t) for each channel, in complex128: [D, N / 2].
struct DiscreteModes {
  at::Tensor A, B, C;
};

DiscreteModes Discretize(const at::Tensor& log_dt, const at::Tensor& log_A_real,
                         const at::Tensor& A_imag, const at::Tensor& C, bool bilinear) {
  const at::Tensor delta = log_dt.to(at::kDouble).exp().unsqueeze(1);  // [D, 1]
  const at::Tensor rates =
      at::complex(log_A_real.to(at::kDouble).exp().neg(), A_imag.to(at::kDouble));
  // Each mode stands for its conjugate too.
  const at::Tensor outputs = at::view_as_complex(C.to(at::kDouble).contiguous()).mul(2);
  const at::Tensor step = rates.mul(delta);
  if (bilinear) {
    const at::Tensor denominator = step.div(-2).add(1);
    return {.A = step.div(2).add(1).div(denominator), .B = delta.div(denominator), .C = outputs};
  }
  const at::Tensor A = step.exp();
  return {.A = A, .B = A.sub(1).div(rates), .C = outputs};
}

class S4dMixer {
 public:
  static absl::StatusOr<S4dMixer> Take(TensorSource& tensors, const S4dConfig& config,
                                       const std::string& prefix) {
    S4dMixer mixer;
    const int64_t width = config.hidden_size;
    const int64_t modes = config.mode_count;
    mixer.activation_ = config.activation;
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_dt, tensors.Take(prefix + "kernel.log_dt", {width}));
    ESS_ASSIGN_OR_RETURN(const at::Tensor log_A_real,
                         tensors.Take(prefix + "kernel.log_A_real", {width, modes}));
    ESS_ASSIGN_OR_RETURN(const at::Tensor A_imag,
                         tensors.Take(prefix + "kernel.A_imag", {width, modes}));
    ESS_ASSIGN_OR_RETURN(const at::Tensor C, tensors.Take(prefix + "kernel.C", {width, modes, 2}));
    mixer.modes_ = Discretize(log_dt, log_A_real, A_imag, C, config.bilinear);
    ESS_ASSIGN_OR_RETURN(mixer.skip_, tensors.Take(prefix + "D", {width}));
    const std::string output = prefix + "output_linear.0";  // A convolution of one tap.
    ESS_ASSIGN_OR_RETURN(const at::Tensor weight,
                         tensors.Take(output + ".weight", {2 * width, width, 1}));
    mixer.output_.weight = weight.squeeze(2);
    ESS_ASSIGN_OR_RETURN(mixer.output_.bias, tensors.Take(output + ".bias", {2 * width}));
    return mixer;
  }

  // x [L, D] => [L, D]; undefined when the pass ends after this mixer.
  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, int64_t mixer, ForwardPass& pass) const {
    if (pass.Wants(mixer)) ESS_RETURN_IF_ERROR(Capture(x.size(0), mixer, pass));
    if (pass.EndsAfter(mixer)) return at::Tensor();
    ESS_ASSIGN_OR_RETURN(at::Tensor y, Convolve(x.to(at::kFloat), pass));
    y = y.addcmul(x, skip_).to(x.scalar_type());
    activation_(y);
    return at::glu(output_(y), -1);
  }

 private:
  // As complex recurrences: the state that they carry is bounded, whatever the length of the
  // filter.
  absl::Status Capture(int64_t length, int64_t mixer, ForwardPass& pass) const {
    const int64_t modes = modes_.A.size(1);
    return ForHeadGroups(
        modes_.A.size(0), /*numbers_per_head=*/3 * 2 * modes * length, pass,
        [&](int64_t first, int64_t count) {
          const auto everywhere = [&](const at::Tensor& mode) {
            return mode.narrow(0, first, count).unsqueeze(1).expand({count, length, modes});
          };
          const operators::DiagonalRecurrence op(everywhere(modes_.A), everywhere(modes_.B),
                                                 everywhere(modes_.C));
          return pass.Accept(mixer, first, op);
        });
  }

  // y_i = sum over j <= i of filter_{i-j} u_j in each channel: [L, D] => [L, D].
  absl::StatusOr<at::Tensor> Convolve(const at::Tensor& u, const ForwardPass& pass) const {
    const int64_t length = u.size(0);
    const int64_t modes = modes_.A.size(1);
    at::Tensor y = at::empty_like(u);
    ESS_RETURN_IF_ERROR(ForHeadGroups(
        u.size(1), /*numbers_per_head=*/2 * modes * length, pass,
        [&](int64_t first, int64_t count) {
          const at::Tensor filter = Filter(first, count, length).to(at::kFloat);  // [count, L]
          const at::Tensor input = u.narrow(1, first, count).t();                 // [count, L]
          // Twice the length: nothing wraps around.
          const at::Tensor spectrum =
              at::fft_rfft(input, 2 * length).mul(at::fft_rfft(filter, 2 * length));
          const at::Tensor convolved = at::fft_irfft(spectrum, 2 * length);
          y.narrow(1, first, count).copy_(convolved.narrow(1, 0, length).t());
          return absl::OkStatus();
        }));
    return y;
  }

  // Re(C B A^t) summed over the modes, for t < length: [count, length] float64.
  at::Tensor Filter(int64_t first, int64_t count, int64_t length) const {
    const auto channels = [&](const at::Tensor& mode) { return mode.narrow(0, first, count); };
    at::Tensor powers = channels(modes_.A).unsqueeze(2).repeat({1, 1, length});
    powers.select(2, 0).fill_(1);
    powers = powers.cumprod(2);  // [count, N / 2, L]
    const at::Tensor weights = channels(modes_.C).mul(channels(modes_.B)).unsqueeze(1);
    return at::real(at::bmm(weights, powers).squeeze(1));
  }

  ActivationInPlace activation_ = nullptr;
  DiscreteModes modes_;
  at::Tensor skip_;  // [D], "D" in the paper.
  Linear output_;    // [2 D, D]
};

struct S4dLayer {
  LayerNorm norm;
  S4dMixer mixer;
};

class S4dDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<S4dDecoder>> Create(const S4dConfig& config,
                                                            TensorSource& tensors) {
    auto decoder = std::make_unique<S4dDecoder>();
    decoder->norm_first_ = config.norm_first;
    const auto take_norm = [&](const std::string& name) {
      return TakeLayerNorm(tensors, name, config.hidden_size, config.norm_epsilon);
    };
    ESS_ASSIGN_OR_RETURN(
        decoder->embedding_,
        tensors.Take("embeddings.weight", {config.vocabulary_size, config.hidden_size}));
    for (int64_t index = 0; index < config.layer_count; ++index) {
      const std::string prefix = fmt::format("layers.{}.", index);
      S4dLayer& layer = decoder->layers_.emplace_back();
      ESS_ASSIGN_OR_RETURN(layer.norm, take_norm(prefix + "norm"));
      ESS_ASSIGN_OR_RETURN(layer.mixer, S4dMixer::Take(tensors, config, prefix + "s4d."));
    }
    if (config.norm_first) {
      ESS_ASSIGN_OR_RETURN(decoder->norm_, take_norm("norm"));
    }
    ESS_ASSIGN_OR_RETURN(decoder->head_, TakeHead(tensors, "lm_head", decoder->embedding_));
    return decoder;
  }

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    PromptState state;
    state.hidden = embeddings;
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const S4dLayer& layer = layers_[static_cast<size_t>(layer_index)];
    const at::Tensor x = norm_first_ ? layer.norm(state.hidden) : state.hidden;
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, layer.mixer.Mix(x, layer_index, pass));
    if (!mixed.defined()) return absl::OkStatus();
    state.hidden.add_(mixed);
    if (!norm_first_) state.hidden = layer.norm(state.hidden);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override {
    return head_(norm_first_ ? norm_(hidden) : hidden);
  }

 private:
  bool norm_first_ = true;
  at::Tensor embedding_;  // [V, D]
  std::vector<S4dLayer> layers_;
  LayerNorm norm_;  // Where norms come first.
  Linear head_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateS4d(const ConfigReader& config,
                                                         TensorSource& tensors,
                                                         const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const S4dConfig s4d, ReadS4d(config));
  ESS_ASSIGN_OR_RETURN(auto decoder, S4dDecoder::Create(s4d, tensors));
  ModelDescription description = DescribeModel("s4d", device, tensors.Totals());
  description.vocabulary_size = s4d.vocabulary_size;
  description.max_positions = 0;  // A recurrence has no limit.
  description.hidden_size = s4d.hidden_size;
  for (int64_t layer = 0; layer < s4d.layer_count; ++layer) {
    Mixer& mixer = description.mixers.emplace_back(
        RecurrenceMixer("DiagonalRecurrence", s4d.hidden_size, /*channels=*/1, 2 * s4d.mode_count));
    mixer.name = MixerName(layer);
    mixer.layer_index = layer;
  }
  return std::make_unique<DecoderModel>(std::move(description), s4d.layer_count,
                                        std::move(decoder));
}

// S4D-Lin of the paper, section 4.1, and the public code's other parameters.
absl::StatusOr<InitialWeights> S4dInitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const S4dConfig s4d, ReadS4d(config));
  const auto frequencies = [](const RandomNumbers&, at::Tensor& weight) {
    weight.copy_(at::arange(weight.size(1), weight.options()).mul_(std::numbers::pi));
  };
  const double bound = 1 / std::sqrt(static_cast<double>(s4d.hidden_size));
  return ReadInitialWeights(
      config, {},
      {{.names = "*.log_dt", .distribution = Uniform(std::log(1e-3), std::log(1e-1))},
       {.names = "*.log_A_real", .distribution = Constant(std::log(0.5))},
       {.names = "*.A_imag", .distribution = {.fill = frequencies}},
       {.names = "*.kernel.C", .distribution = Normal(std::sqrt(0.5))},
       {.names = "*.D", .distribution = Normal(1)},
       {.names = "*.output_linear.0.*", .distribution = Uniform(-bound, bound)}});
}

nlohmann::json TinyS4dConfig() {
  return {{"model_type", "s4d"}, {"vocab_size", 31},       {"hidden_size", 6},
          {"state_size", 8},     {"num_hidden_layers", 3}, {"discretization", "bilinear"}};
}

}  // namespace

Architecture S4dArchitecture() {
  return {.model_type = "s4d",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateS4d,
          .initial_weights = S4dInitialWeights,
          .tiny_config = TinyS4dConfig};
}

}  // namespace ess::models
