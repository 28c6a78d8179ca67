#include "server/models/fla_decoder.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/fla_attention.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr double kMaxRatio = 1024;

struct FlaLayer {
  RmsNorm mixer_norm;
  std::unique_ptr<SequenceMixer> mixer;
  RmsNorm feed_forward_norm;
  GatedFeedForward feed_forward;
};

class FlaDecoder final : public Decoder {
 public:
  FlaDecoder(at::Tensor embedding, std::vector<FlaLayer> layers, RmsNorm norm, Linear head)
      : embedding_(std::move(embedding)),
        layers_(std::move(layers)),
        norm_(std::move(norm)),
        head_(std::move(head)) {}

  const at::Tensor& embedding() const override { return embedding_; }

  PromptState Begin(const at::Tensor& embeddings) const override {
    PromptState state;
    state.hidden = embeddings;
    return state;
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const FlaLayer& layer = layers_[static_cast<size_t>(layer_index)];
    ESS_ASSIGN_OR_RETURN(
        const at::Tensor mixed,
        layer.mixer->Mix(layer.mixer_norm(state.hidden), /*rotary=*/{}, layer_index, pass));
    if (!mixed.defined()) return absl::OkStatus();
    state.hidden.add_(mixed);
    layer.feed_forward.down.AddToInPlace(
        state.hidden, layer.feed_forward.Inner(layer.feed_forward_norm(state.hidden)));
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(norm_(hidden)); }

 private:
  const at::Tensor embedding_;  // [V, D]
  const std::vector<FlaLayer> layers_;
  const RmsNorm norm_;
  const Linear head_;
};

}  // namespace

absl::StatusOr<FlaSizes> ReadFlaSizes(const ConfigReader& config, const FlaDefaults& defaults) {
  FlaSizes sizes;
  ESS_ASSIGN_OR_RETURN(sizes.vocabulary_size, config.Size("vocab_size", 32000));
  ESS_ASSIGN_OR_RETURN(sizes.hidden_size, config.Size("hidden_size", 2048));
  ESS_ASSIGN_OR_RETURN(sizes.layer_count,
                       config.Size("num_hidden_layers", defaults.layer_count, kMaxLayers));
  ESS_ASSIGN_OR_RETURN(
      const double ratio,
      config.Number("hidden_ratio", config.IsNull("hidden_ratio") ? 4 : defaults.hidden_ratio, 1e-3,
                    kMaxRatio));
  const int64_t inner = RoundUp(static_cast<double>(sizes.hidden_size) * ratio * 2 / 3, 256);
  ESS_ASSIGN_OR_RETURN(sizes.intermediate_size, config.Size("intermediate_size", inner));
  ESS_RETURN_IF_ERROR(
      CheckWidth(config, sizes.intermediate_size, "hidden_size * hidden_ratio * 2 / 3"));
  ESS_RETURN_IF_ERROR(config.Choice("hidden_act", "swish", {"swish"}).status());
  ESS_ASSIGN_OR_RETURN(sizes.norm_epsilon, config.Number("norm_eps", 1e-6, 0, 1));
  return sizes;
}

absl::StatusOr<FlaHeads> ReadFlaHeads(const ConfigReader& config, int64_t hidden_size,
                                      const FlaHeadDefaults& defaults) {
  FlaHeads heads;
  ESS_ASSIGN_OR_RETURN(heads.count, config.Size("num_heads", defaults.count));
  ESS_ASSIGN_OR_RETURN(heads.groups, config.Size("num_kv_heads", heads.count));
  ESS_RETURN_IF_ERROR(config.CheckMultiple("num_heads", heads.count, "num_kv_heads", heads.groups));
  const auto head_dim = [&](const std::string& key,
                            double default_ratio) -> absl::StatusOr<int64_t> {
    ESS_ASSIGN_OR_RETURN(const double ratio,
                         config.Number(key, default_ratio, 1 / kMaxRatio, kMaxRatio));
    const std::string product = fmt::format("hidden_size * {}", key);
    ESS_ASSIGN_OR_RETURN(const int64_t width, WholeProduct(config, hidden_size, ratio, product));
    if (width % heads.count != 0 || width == 0) {
      return config.Contradiction(
          fmt::format("{} is {}, not a multiple of num_heads = {}", product, width, heads.count));
    }
    return width / heads.count;
  };
  ESS_ASSIGN_OR_RETURN(heads.key_dim, head_dim("expand_k", defaults.expand_k));
  ESS_ASSIGN_OR_RETURN(heads.value_dim, head_dim("expand_v", defaults.expand_v));
  return heads;
}

absl::StatusOr<GatedOutputLayout> ReadFlaOutput(const ConfigReader& config, const FlaSizes& sizes,
                                                const FlaHeads& heads) {
  GatedOutputLayout output{.head_count = heads.count,
                           .head_dim = heads.value_dim,
                           .hidden_size = sizes.hidden_size,
                           .norm = "g_norm",
                           .norm_epsilon = sizes.norm_epsilon,
                           .activation = FindActivation("silu")};
  ESS_ASSIGN_OR_RETURN(output.gate, config.Bool("use_output_gate", true));
  ESS_ASSIGN_OR_RETURN(output.norm_weight, config.Bool("elementwise_affine", true));
  ESS_ASSIGN_OR_RETURN(const bool fused, config.Bool("fuse_norm", true));
  if (fused && output.gate) output.norm = "g_norm_swish_gate";
  return output;
}

GatedOutputLayout UngatedOutput(int64_t hidden_size, bool norm_weight) {
  return {.head_count = 1,
          .head_dim = hidden_size,
          .hidden_size = hidden_size,
          .norm = "g_norm",
          .norm_weight = norm_weight,
          .norm_epsilon = 1e-5,
          .gate = false};
}

absl::StatusOr<int64_t> ReadShortConvolution(const ConfigReader& config, bool used_by_default) {
  ESS_ASSIGN_OR_RETURN(const bool used, config.Bool("use_short_conv", used_by_default));
  ESS_ASSIGN_OR_RETURN(const int64_t taps, config.Size("conv_size", 4));
  return used ? taps : 0;
}

absl::StatusOr<ActivationInPlace> ReadFlaActivation(const ConfigReader& config,
                                                    const std::string& key,
                                                    const std::string& default_name) {
  if (!config.Has(key) && default_name.empty()) return nullptr;
  // Theirs and ours; its gelu is the tanh form.
  static const auto& names = *new std::map<std::string, std::string>{
      {"gelu", "gelu_pytorch_tanh"}, {"relu", "relu"}, {"sigmoid", "sigmoid"}, {"silu", "silu"},
      {"sqrelu", "relu2"},           {"swish", "silu"}};
  std::vector<std::string> supported;
  for (const auto& [theirs, ours] : names) supported.push_back(theirs);
  ESS_ASSIGN_OR_RETURN(const std::string name, config.Choice(key, default_name, supported));
  return FindActivation(names.at(name));
}

int64_t RoundUp(double width, int64_t multiple) {
  return (static_cast<int64_t>(width) + multiple - 1) / multiple * multiple;
}

absl::Status CheckWidth(const ConfigReader& config, int64_t width, std::string_view product) {
  if (width <= kMaxConfigSize) return absl::OkStatus();
  return config.UnsupportedValue(product, static_cast<double>(width),
                                 fmt::format("1 to {}", kMaxConfigSize));
}

absl::StatusOr<int64_t> WholeProduct(const ConfigReader& config, int64_t count, double ratio,
                                     std::string_view product) {
  const double exact = static_cast<double>(count) * ratio;
  const double whole = std::round(exact);
  if (std::abs(exact - whole) > 1e-9 * exact) {
    return config.Contradiction(fmt::format("{} is {:g}, not a whole number", product, exact));
  }
  ESS_RETURN_IF_ERROR(CheckWidth(config, static_cast<int64_t>(whole), product));
  return static_cast<int64_t>(whole);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> MakeFlaDecoder(
    const std::string& model_type, const ConfigReader& config, const FlaSizes& sizes,
    TensorSource& tensors, const std::string& device, TakeFlaMixer take_mixer) {
  // Block attention residuals.
  if (config.Has("attnres_block_size")) return config.Unsupported("attnres_block_size", "null");
  ESS_ASSIGN_OR_RETURN(const auto attention,
                       ReadFlaAttention(config, sizes.layer_count, sizes.hidden_size));
  ESS_ASSIGN_OR_RETURN(
      const at::Tensor embedding,
      tensors.Take("embeddings.weight", {sizes.vocabulary_size, sizes.hidden_size}));
  const auto take_norm = [&](const std::string& name) {
    return TakeRmsNorm(tensors, name, sizes.hidden_size, sizes.norm_epsilon);
  };
  std::vector<FlaLayer> layers;
  std::vector<Mixer> mixers;
  for (int64_t layer = 0; layer < sizes.layer_count; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    const auto& softmax = attention[static_cast<size_t>(layer)];
    FlaLayer& taken = layers.emplace_back();
    ESS_ASSIGN_OR_RETURN(taken.mixer_norm, take_norm(prefix + "attn_norm"));
    ESS_ASSIGN_OR_RETURN(taken.mixer, softmax.has_value()
                                          ? TakeAttentionMixer(tensors, prefix + "attn.", *softmax)
                                          : take_mixer(prefix + "attn.", layer));
    ESS_ASSIGN_OR_RETURN(taken.feed_forward_norm, take_norm(prefix + "mlp_norm"));
    ESS_ASSIGN_OR_RETURN(taken.feed_forward,
                         TakeGatedFeedForward(tensors, prefix + "mlp.",
                                              {.width = sizes.hidden_size,
                                               .inner = sizes.intermediate_size,
                                               .activation = FindActivation("silu")}));
    Mixer& described = mixers.emplace_back(taken.mixer->Describe());
    described.name = MixerName(layer);
    described.layer_index = layer;
  }
  ESS_ASSIGN_OR_RETURN(RmsNorm norm, take_norm("norm"));
  ESS_ASSIGN_OR_RETURN(Linear head, TakeHead(tensors, "lm_head", embedding));

  ModelDescription description = DescribeModel(model_type, device, tensors.Totals());
  description.vocabulary_size = sizes.vocabulary_size;
  description.max_positions = 0;  // max_position_embeddings is a hint: nothing ends there.
  description.hidden_size = sizes.hidden_size;
  description.mixers = std::move(mixers);
  return std::make_unique<DecoderModel>(
      std::move(description), sizes.layer_count,
      std::make_unique<FlaDecoder>(embedding, std::move(layers), std::move(norm), std::move(head)));
}

Architecture FlaArchitecture(std::string model_type, decltype(Architecture::create) create,
                             nlohmann::json (*tiny_config)(),
                             decltype(Architecture::initial_weights) initial_weights) {
  Architecture architecture{.model_type = std::move(model_type),
                            .base_prefixes = {"model."},
                            .ignored_suffixes = {".rotary.inv_freq"},
                            .create = create,
                            .tiny_config = tiny_config};
  if (initial_weights != nullptr) architecture.initial_weights = initial_weights;
  return architecture;
}

}  // namespace ess::models
