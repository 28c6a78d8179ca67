#include "server/models/rwkv7.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/low_rank.h"
#include "server/models/layers/rank_one_scan.h"
#include "server/models/layers/token_shift.h"
#include "server/models/layers/unit_norm.h"
#include "server/models/model_description.h"
#include "server/models/rwkv7_initial_weights.h"
#include "server/models/rwkv_decoder.h"

namespace ess::models {
namespace {

// Log decays lie between this and 0: -exp(-1/2).
constexpr double kLowestLogDecay = -0.6065306597126334;

struct Rwkv7Config {
  RwkvSizes sizes;
  int64_t head_dim = 0;    // N: of receptances, keys and values.
  int64_t head_count = 0;  // H
  int64_t decay_rank = 0, gate_rank = 0, rate_rank = 0, value_rank = 0;
  // How kernels are fused does not matter, but for the epsilon that goes with it.
  bool fused_norm = true;
};

// Widths of the low-rank projections where the config says null: c sqrt(D), scaled by the head's
// width where `by_head`, rounded to a multiple of 32.
absl::Status ReadRanks(const ConfigReader& config, Rwkv7Config& rwkv) {
  const auto rank = [&](const std::string& key, int64_t default_rank, double factor,
                        bool by_head) -> absl::StatusOr<int64_t> {
    const double head_factor = by_head ? static_cast<double>(rwkv.head_dim) / 64 : 1;
    const double share =
        factor * std::sqrt(static_cast<double>(rwkv.sizes.hidden_size)) * head_factor;
    const auto rounded = static_cast<int64_t>(std::nearbyint(share / 32)) * 32;
    return config.Size(key, config.IsNull(key) ? std::max<int64_t>(32, rounded) : default_rank);
  };
  ESS_ASSIGN_OR_RETURN(rwkv.decay_rank, rank("decay_low_rank_dim", 64, 2.5, true));
  ESS_ASSIGN_OR_RETURN(rwkv.gate_rank, rank("gate_low_rank_dim", 128, 5, false));
  ESS_ASSIGN_OR_RETURN(rwkv.rate_rank, rank("a_low_rank_dim", 64, 2.5, true));
  ESS_ASSIGN_OR_RETURN(rwkv.value_rank, rank("v_low_rank_dim", 16, 1.7, true));
  return absl::OkStatus();
}

absl::Status ReadHeads(const ConfigReader& config, Rwkv7Config& rwkv) {
  const int64_t width = rwkv.sizes.hidden_size;
  // `head_dim` wins over `num_heads`, as in the public layer.
  if (config.IsNull("head_dim")) {
    ESS_ASSIGN_OR_RETURN(rwkv.head_count, config.Size("num_heads", std::nullopt));
    ESS_RETURN_IF_ERROR(config.CheckMultiple("hidden_size", width, "num_heads", rwkv.head_count));
    rwkv.head_dim = width / rwkv.head_count;
  } else {
    ESS_ASSIGN_OR_RETURN(rwkv.head_dim, config.Size("head_dim", 64));
    ESS_RETURN_IF_ERROR(config.CheckMultiple("hidden_size", width, "head_dim", rwkv.head_dim));
    rwkv.head_count = width / rwkv.head_dim;
  }
  // The public class cannot make other widths of values.
  ESS_ASSIGN_OR_RETURN(const int64_t value_width,
                       config.SameSize("value_dim", rwkv.sizes.layer_count, width));
  if (value_width != width) {
    return config.Unsupported("value_dim", fmt::format("hidden_size = {}", width));
  }
  return absl::OkStatus();
}

absl::StatusOr<Rwkv7Config> ReadRwkv7(const ConfigReader& config) {
  Rwkv7Config rwkv;
  ESS_ASSIGN_OR_RETURN(rwkv.sizes, ReadRwkvSizes(config, /*default_ratio=*/4));
  ESS_RETURN_IF_ERROR(ReadHeads(config, rwkv));
  ESS_RETURN_IF_ERROR(ReadRanks(config, rwkv));
  ESS_ASSIGN_OR_RETURN(rwkv.fused_norm, config.Bool("fuse_norm", true));
  // Its blocks cannot run the attention that its config can ask for.
  if (config.Has("attn")) return config.Unsupported("attn", "null");
  return rwkv;
}

// What is mixed with the position before, in the order of older files' `x_x`.
enum Shifted { kReceptance, kDecay, kKey, kValue, kRate, kGate, kShiftedCount };
constexpr const char* kShiftedNames[kShiftedCount] = {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"};

class Rwkv7Mixer final : public RwkvMixer {
 public:
  static absl::StatusOr<std::unique_ptr<RwkvMixer>> Take(TensorSource& tensors,
                                                         const Rwkv7Config& config,
                                                         bool first_layer,
                                                         const std::string& prefix) {
    auto mixer = std::make_unique<Rwkv7Mixer>();
    mixer->config_ = config;
    const int64_t width = config.sizes.hidden_size;
    ESS_RETURN_IF_ERROR(mixer->TakeShifts(tensors, prefix));
    const auto linear = [&](const std::string& name) {
      return TakeLinear(tensors, prefix + name, width, width, /*bias=*/false);
    };
    ESS_ASSIGN_OR_RETURN(mixer->receptance_, linear("r_proj"));
    ESS_ASSIGN_OR_RETURN(mixer->key_, linear("k_proj"));
    ESS_ASSIGN_OR_RETURN(mixer->value_, linear("v_proj"));
    ESS_ASSIGN_OR_RETURN(mixer->output_, linear("o_proj"));
    const auto low_rank = [&](const std::string& name, int64_t rank, bool bias,
                              ActivationInPlace activation) {
      return TakeLowRank(tensors, prefix + name,
                         {.outputs = width,
                          .inputs = width,
                          .rank = rank,
                          .bias = bias,
                          .activation = activation});
    };
    ESS_ASSIGN_OR_RETURN(mixer->decay_,
                         low_rank("w_lora", config.decay_rank, true, FindActivation("tanh")));
    ESS_ASSIGN_OR_RETURN(mixer->rate_, low_rank("a_lora", config.rate_rank, true, nullptr));
    ESS_ASSIGN_OR_RETURN(mixer->gate_,
                         low_rank("g_lora", config.gate_rank, false, FindActivation("sigmoid")));
    if (!first_layer) {
      ESS_ASSIGN_OR_RETURN(mixer->value_mix_, low_rank("v_lora", config.value_rank, true, nullptr));
    }
    ESS_ASSIGN_OR_RETURN(mixer->removal_scale_, tensors.Take(prefix + "k_k", {width}));
    ESS_ASSIGN_OR_RETURN(mixer->rate_scale_, tensors.Take(prefix + "k_a", {width}));
    ESS_ASSIGN_OR_RETURN(mixer->bonus_,
                         tensors.Take(prefix + "r_k", {config.head_count, config.head_dim}));
    ESS_ASSIGN_OR_RETURN(mixer->norm_, TakeLayerNorm(tensors, prefix + "g_norm", width,
                                                     static_cast<double>(config.head_dim) *
                                                         config.sizes.norm_epsilon));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalPlusRankOne", config_.head_count,
                           /*channels=*/config_.head_dim, /*states=*/config_.head_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, PromptState& state, int64_t mixer,
                                 ForwardPass& pass) const override {
    const at::Tensor wide = x.to(at::kFloat);  // Of all that forms the operators.
    const at::Tensor delta = TokenShift(wide);
    const auto shifted = [&](Shifted which) { return wide.addcmul(delta, shifts_[which]); };
    const auto as_x = [&](const at::Tensor& all) { return all.to(x.scalar_type()); };
    const at::Tensor raw_keys = key_(shifted(kKey));
    const at::Tensor rate = rate_(shifted(kRate)).sigmoid_();  // [L, D]
    const at::Tensor removed = Removed(raw_keys);              // [L, H, N]
    const at::Tensor values = Heads(Values(as_x(shifted(kValue)), state.first_values));
    const at::Tensor keys = raw_keys.mul(rate.sub(1).mul_(rate_scale_).add_(1));
    const at::Tensor log_decays = decay_(shifted(kDecay)).sigmoid_().mul_(kLowestLogDecay);
    const RankOneScanInputs scan = {.receptances = Heads(receptance_(shifted(kReceptance))),
                                    .log_decays = Heads(log_decays),
                                    .to = removed.mul(Heads(rate)),
                                    .from = removed.neg(),
                                    .keys = Heads(keys),
                                    .values = values};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, RankOneScan(scan, mixer, pass));
    if (!y.defined()) return y;
    // What the current position adds at once, outside of the recurrence: [L, H, 1].
    const at::Tensor bonus = scan.receptances.mul(scan.keys).mul(bonus_).sum(-1, /*keepdim=*/true);
    const at::Tensor mixed = norm_.Heads(y).add_(values.mul(bonus).reshape({x.size(0), -1}));
    return output_(mixed.mul(gate_(as_x(shifted(kGate)))).to(x.scalar_type()));
  }

 private:
  absl::Status TakeShifts(TensorSource& tensors, const std::string& prefix) {
    const int64_t width = config_.sizes.hidden_size;
    if (!tensors.Has(prefix + kShiftedNames[0]) && tensors.Has(prefix + "x_x")) {
      ESS_ASSIGN_OR_RETURN(const at::Tensor all,
                           tensors.Take(prefix + "x_x", {kShiftedCount, width}));
      shifts_ = all.unbind(0);
      return absl::OkStatus();
    }
    for (const char* const name : kShiftedNames) {
      ESS_ASSIGN_OR_RETURN(const at::Tensor taken, tensors.Take(prefix + name, {1, 1, width}));
      shifts_.push_back(taken.view({width}));
    }
    return absl::OkStatus();
  }

  // [L, D] => [L, H, N]
  at::Tensor Heads(const at::Tensor& x) const {
    return x.view({x.size(0), config_.head_count, config_.head_dim});
  }

  // The direction that the state forgets, of unit length in each head.
  at::Tensor Removed(const at::Tensor& keys) const {
    const at::Tensor direction = Heads(keys.mul(removal_scale_));
    if (config_.fused_norm) return UnitLength(direction);
    return direction.div(direction.norm(2, -1, /*keepdim=*/true).clamp_min_(1e-12));
  }

  // Those of the first layer are kept, and mixed into those of the others.
  at::Tensor Values(const at::Tensor& x, at::Tensor& first_values) const {
    const at::Tensor values = value_(x);
    if (!value_mix_.has_value()) {
      first_values = values;
      return values;
    }
    return at::lerp(values, first_values, (*value_mix_)(x).sigmoid_());
  }

  Rwkv7Config config_;
  std::vector<at::Tensor> shifts_;  // By Shifted: [D].
  Linear receptance_, key_, value_, output_;
  LowRank decay_, rate_, gate_;
  std::optional<LowRank> value_mix_;       // Not in the first layer.
  at::Tensor removal_scale_, rate_scale_;  // [D]
  at::Tensor bonus_;                       // [H, N]
  LayerNorm norm_;                         // [D]
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateRwkv7(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Rwkv7Config rwkv, ReadRwkv7(config));
  const int64_t width = rwkv.sizes.hidden_size;
  const int64_t inner = rwkv.sizes.intermediate_size;
  const auto take_feed_forward = [&](const std::string& prefix) -> absl::StatusOr<RwkvFeedForward> {
    RwkvFeedForward taken;
    ESS_ASSIGN_OR_RETURN(taken.key.mu, tensors.Take(prefix + "x_k", {width}));
    ESS_ASSIGN_OR_RETURN(taken.key.projection,
                         TakeLinear(tensors, prefix + "key", inner, width, /*bias=*/false));
    ESS_ASSIGN_OR_RETURN(taken.value,
                         TakeLinear(tensors, prefix + "value", width, inner, /*bias=*/false));
    return taken;
  };
  return MakeRwkvDecoder(
      "rwkv7", rwkv.sizes, tensors, device,
      [&](const std::string& prefix, int64_t layer) {
        return Rwkv7Mixer::Take(tensors, rwkv, /*first_layer=*/layer == 0, prefix);
      },
      take_feed_forward);
}

absl::StatusOr<InitialWeights> ReadRwkv7InitialWeights(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const Rwkv7Config rwkv, ReadRwkv7(config));
  return Rwkv7InitialWeights(config, rwkv.sizes, rwkv.head_dim);
}

nlohmann::json TinyRwkv7Config() {
  return {{"model_type", "rwkv7"},   {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24}, {"num_hidden_layers", 3}, {"head_dim", 4},
          {"decay_low_rank_dim", 5}, {"gate_low_rank_dim", 6}, {"a_low_rank_dim", 3},
          {"v_low_rank_dim", 2}};
}

}  // namespace

Architecture Rwkv7Architecture() {
  return FlaArchitecture("rwkv7", CreateRwkv7, TinyRwkv7Config, ReadRwkv7InitialWeights);
}

}  // namespace ess::models
