#include "server/models/ess_testbed.h"

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/ess_testbed_mixers.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

enum class FeedForwardKind { kGated, kPlain, kNone };

struct TestbedConfig {
  int64_t vocabulary_size = 0;  // V
  TestbedMixerConfig mixing;
  FeedForwardKind feed_forward = FeedForwardKind::kGated;
  int64_t intermediate_size = 0;  // I
  bool rms_norms = true;          // Else layer norms.
  double norm_epsilon = 0;
  bool output_norm = false, output_gate = false;
};

absl::StatusOr<TestbedConfig> ReadTestbed(const ConfigReader& config) {
  TestbedConfig testbed;
  ESS_ASSIGN_OR_RETURN(testbed.vocabulary_size, config.Size("vocab_size", std::nullopt));
  ESS_ASSIGN_OR_RETURN(testbed.mixing, ReadTestbedMixers(config));
  ESS_ASSIGN_OR_RETURN(const std::string mlp,
                       config.Choice("mlp", "swiglu", {"swiglu", "gelu", "none"}));
  testbed.feed_forward = mlp == "swiglu" ? FeedForwardKind::kGated
                         : mlp == "gelu" ? FeedForwardKind::kPlain
                                         : FeedForwardKind::kNone;
  ESS_ASSIGN_OR_RETURN(testbed.intermediate_size,
                       config.Size("intermediate_size", 4 * testbed.mixing.hidden_size));
  if (testbed.intermediate_size > kMaxConfigSize) {
    return config.Unsupported("hidden_size",
                              fmt::format("4 * hidden_size up to {}", kMaxConfigSize));
  }
  ESS_ASSIGN_OR_RETURN(const std::string norm, config.Choice("norm", "rms", {"rms", "layer"}));
  testbed.rms_norms = norm == "rms";
  ESS_ASSIGN_OR_RETURN(testbed.norm_epsilon, config.Number("norm_eps", 1e-5, 0, 1));
  ESS_ASSIGN_OR_RETURN(testbed.output_norm, config.Bool("output_norm", true));
  ESS_ASSIGN_OR_RETURN(testbed.output_gate, config.Bool("output_gate", false));
  return testbed;
}

using Norm = std::variant<RmsNorm, LayerNorm>;

at::Tensor Apply(const Norm& norm, const at::Tensor& x) {
  return std::visit([&](const auto& kind) { return kind(x); }, norm);
}

// Tensors of parts that the config leaves out are undefined.
struct TestbedLayer {
  Norm mixer_norm, feed_forward_norm;
  std::unique_ptr<TestbedMixer> mixer;
  Linear value, output;           // [D, D]
  RmsNorm output_norm;            // Of the channels of one head.
  Linear output_gate;             // [D, D]
  GatedFeedForward feed_forward;  // Without a gate: down(gelu(up x)).
};

// Takes the tensors of one layer.
class LayerTaker {
 public:
  LayerTaker(TensorSource& tensors, const TestbedConfig& config, size_t layer_index)
      : tensors_(tensors),
        config_(config),
        kind_(config.mixing.kinds[layer_index]),
        layer_(fmt::format("layers.{}.", layer_index)) {}

  absl::StatusOr<TestbedLayer> Take() {
    TestbedLayer layer;
    ESS_RETURN_IF_ERROR(TakeMixer(layer));
    if (config_.feed_forward != FeedForwardKind::kNone) ESS_RETURN_IF_ERROR(TakeFeedForward(layer));
    return layer;
  }

  static absl::StatusOr<Norm> TakeNorm(TensorSource& tensors, const TestbedConfig& config,
                                       const std::string& name) {
    const int64_t width = config.mixing.hidden_size;
    if (config.rms_norms) return TakeRmsNorm(tensors, name, width, config.norm_epsilon);
    return TakeLayerNorm(tensors, name, width, config.norm_epsilon);
  }

 private:
  absl::StatusOr<Linear> Take(const std::string& name, int64_t outputs, int64_t inputs) {
    return TakeLinear(tensors_, layer_ + name, outputs, inputs, /*bias=*/false);
  }

  absl::Status TakeMixer(TestbedLayer& layer) {
    const int64_t width = config_.mixing.hidden_size;
    ESS_ASSIGN_OR_RETURN(layer.mixer_norm, TakeNorm(tensors_, config_, layer_ + "mixer_norm"));
    ESS_ASSIGN_OR_RETURN(layer.mixer,
                         TakeTestbedMixer(tensors_, config_.mixing, kind_, layer_ + "mixer."));
    ESS_ASSIGN_OR_RETURN(layer.value, Take("mixer.v_proj", width, width));
    ESS_ASSIGN_OR_RETURN(layer.output, Take("mixer.o_proj", width, width));
    if (config_.output_norm && kind_ != TestbedMixerKind::kSA) {
      ESS_ASSIGN_OR_RETURN(layer.output_norm,
                           TakeRmsNorm(tensors_, layer_ + "mixer.norm", config_.mixing.head_dim,
                                       config_.norm_epsilon));
    }
    if (config_.output_gate) {
      ESS_ASSIGN_OR_RETURN(layer.output_gate, Take("mixer.g_proj", width, width));
    }
    return absl::OkStatus();
  }

  absl::Status TakeFeedForward(TestbedLayer& layer) {
    const int64_t width = config_.mixing.hidden_size;
    const int64_t inner = config_.intermediate_size;
    ESS_ASSIGN_OR_RETURN(layer.feed_forward_norm, TakeNorm(tensors_, config_, layer_ + "mlp_norm"));
    if (config_.feed_forward == FeedForwardKind::kGated) {
      ESS_ASSIGN_OR_RETURN(
          layer.feed_forward,
          TakeGatedFeedForward(
              tensors_, layer_ + "mlp.",
              {.width = width, .inner = inner, .activation = FindActivation("silu")}));
      return absl::OkStatus();
    }
    ESS_ASSIGN_OR_RETURN(layer.feed_forward.up, Take("mlp.up_proj", inner, width));
    ESS_ASSIGN_OR_RETURN(layer.feed_forward.down, Take("mlp.down_proj", width, inner));
    return absl::OkStatus();
  }

  TensorSource& tensors_;
  const TestbedConfig& config_;
  const TestbedMixerKind kind_;
  const std::string layer_;
};

class TestbedDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<TestbedDecoder>> Create(const TestbedConfig& config,
                                                                TensorSource& tensors) {
    auto decoder = std::make_unique<TestbedDecoder>();
    decoder->head_dim_ = config.mixing.head_dim;
    ESS_ASSIGN_OR_RETURN(
        decoder->embedding_,
        tensors.Take("embed_tokens.weight", {config.vocabulary_size, config.mixing.hidden_size}));
    for (size_t layer = 0; layer < config.mixing.kinds.size(); ++layer) {
      ESS_ASSIGN_OR_RETURN(TestbedLayer taken, LayerTaker(tensors, config, layer).Take());
      decoder->layers_.push_back(std::move(taken));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_, LayerTaker::TakeNorm(tensors, config, "norm"));
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
    const TestbedLayer& layer = layers_[static_cast<size_t>(layer_index)];
    const at::Tensor x = Apply(layer.mixer_norm, state.hidden);
    ESS_ASSIGN_OR_RETURN(at::Tensor mixed, layer.mixer->Mix(x, layer.value(x), layer_index, pass));
    if (!mixed.defined()) return absl::OkStatus();
    if (layer.output_norm.weight.defined()) {
      mixed = layer.output_norm(mixed.view({x.size(0), -1, head_dim_})).view(x.sizes());
    }
    if (layer.output_gate.weight.defined()) mixed = mixed.mul(at::silu(layer.output_gate(x)));
    layer.output.AddToInPlace(state.hidden, mixed);
    const GatedFeedForward& feed_forward = layer.feed_forward;
    if (!feed_forward.up.weight.defined()) return absl::OkStatus();
    const at::Tensor y = Apply(layer.feed_forward_norm, state.hidden);
    const at::Tensor inner =
        feed_forward.gate.weight.defined() ? feed_forward.Inner(y) : at::gelu(feed_forward.up(y));
    feed_forward.down.AddToInPlace(state.hidden, inner);
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(Apply(norm_, hidden)); }

 private:
  int64_t head_dim_ = 0;  // d
  at::Tensor embedding_;  // [V, D]
  std::vector<TestbedLayer> layers_;
  Norm norm_;
  Linear head_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateTestbed(const ConfigReader& config,
                                                             TensorSource& tensors,
                                                             const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const TestbedConfig testbed, ReadTestbed(config));
  ESS_ASSIGN_OR_RETURN(auto decoder, TestbedDecoder::Create(testbed, tensors));
  ModelDescription description = DescribeModel("ess_testbed", device, tensors.Totals());
  description.vocabulary_size = testbed.vocabulary_size;
  description.max_positions = 0;  // Rotary positions and recurrences have no limit.
  description.hidden_size = testbed.mixing.hidden_size;
  description.mixers = DescribeTestbedMixers(testbed.mixing);
  const int64_t layer_count = static_cast<int64_t>(description.mixers.size());
  return std::make_unique<DecoderModel>(std::move(description), layer_count, std::move(decoder));
}

// The distributions of client/ess_client/testbed/initialization.py.
absl::StatusOr<InitialWeights> TestbedInitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const TestbedMixerConfig mixing, ReadTestbedMixers(config));
  ESS_ASSIGN_OR_RETURN(const double divisor, config.Number("rate_divisor", 1, 1e-12, 1e12));
  ESS_ASSIGN_OR_RETURN(const double shortest, config.Number("time_step_min", 1e-3, 1e-12, 1e6));
  ESS_ASSIGN_OR_RETURN(const double longest, config.Number("time_step_max", 1e-1, 1e-12, 1e6));
  if (longest < shortest) {
    return config.Contradiction(
        fmt::format("time_step_max is {}, below time_step_min = {}", longest, shortest));
  }
  std::vector<InitialRule> rules = {
      {.names = "*.dt_proj.bias",
       .distribution = SoftplusInverseOfLogUniform(shortest, longest, /*floor=*/0)}};
  for (size_t layer = 0; layer < mixing.kinds.size(); ++layer) {
    rules.push_back({.names = fmt::format("layers.{}.mixer.A", layer),
                     .distribution = mixing.kinds[layer] == TestbedMixerKind::kS6
                                         ? Multiples(1 / divisor)
                                         : Constant(0)});
  }
  return ReadInitialWeights(config, {}, std::move(rules));
}

// A layer of every kind.
nlohmann::json TinyTestbedConfig() {
  const std::vector<std::string> mixers = TestbedMixerNames();
  return {{"model_type", "ess_testbed"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"num_hidden_layers", mixers.size()},
          {"mixers", mixers},
          {"num_attention_heads", 4},
          {"state_size", 6},
          {"intermediate_size", 24},
          {"gate_rank", 3},
          {"norm", "layer"},
          {"output_gate", true}};
}

}  // namespace

Architecture EssTestbedArchitecture() {
  return {.model_type = "ess_testbed",
          .base_prefixes = {"model."},
          .ignored_suffixes = {},
          .create = CreateTestbed,
          .initial_weights = TestbedInitialWeights,
          .tiny_config = TinyTestbedConfig};
}

}  // namespace ess::models
