#include "server/models/rwkv6.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/low_rank.h"
#include "server/models/layers/token_shift.h"
#include "server/models/model_description.h"
#include "server/models/rwkv_decoder.h"

namespace ess::models {
namespace {

// Receptance, decay, key, value and gate have a mixture each, in this order.
constexpr int64_t kMixtures = 5;

struct Rwkv6Config {
  RwkvSizes sizes;
  FlaHeads heads;
  int64_t mixture_rank = 0;
  int64_t decay_rank = 0;
};

absl::StatusOr<Rwkv6Config> ReadRwkv6(const ConfigReader& config) {
  Rwkv6Config rwkv;
  ESS_ASSIGN_OR_RETURN(rwkv.sizes, ReadRwkvSizes(config, /*default_ratio=*/3.5));
  ESS_ASSIGN_OR_RETURN(rwkv.heads, ReadFlaHeads(config, rwkv.sizes.hidden_size,
                                                {.count = 4, .expand_k = 0.5, .expand_v = 1}));
  if (rwkv.heads.groups != rwkv.heads.count) {
    return config.Unsupported("num_kv_heads", "as many as num_heads");
  }
  ESS_ASSIGN_OR_RETURN(rwkv.mixture_rank, config.Size("proj_low_rank_dim", 32));
  ESS_ASSIGN_OR_RETURN(rwkv.decay_rank, config.Size("gate_low_rank_dim", 64));
  if (config.Has("attn")) return config.Unsupported("attn", "null");
  return rwkv;
}

class Rwkv6Mixer final : public RwkvMixer {
 public:
  static absl::StatusOr<std::unique_ptr<RwkvMixer>> Take(TensorSource& tensors,
                                                         const Rwkv6Config& config,
                                                         const std::string& prefix) {
    auto mixer = std::make_unique<Rwkv6Mixer>();
    mixer->config_ = config;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const int64_t keys = heads.count * heads.key_dim;
    const int64_t values = heads.count * heads.value_dim;
    const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
      return TakeLinear(tensors, prefix + name, outputs, inputs, /*bias=*/false);
    };
    const int64_t ranks = kMixtures * config.mixture_rank;
    ESS_ASSIGN_OR_RETURN(mixer->mixture_.projection, linear("x_proj.0.linear", ranks, width));
    ESS_ASSIGN_OR_RETURN(mixer->mixture_.mu, tensors.Take(prefix + "x_proj.0.mu", {width}));
    ESS_ASSIGN_OR_RETURN(mixer->mixture_up_, linear("x_proj.2", width, ranks));
    ESS_ASSIGN_OR_RETURN(mixer->mixture_bias_, tensors.Take(prefix + "x_bias", {kMixtures, width}));
    ESS_ASSIGN_OR_RETURN(mixer->receptance_, linear("r_proj.linear", keys, width));
    ESS_ASSIGN_OR_RETURN(mixer->decay_, TakeLowRank(tensors, prefix + "w_proj.linear",
                                                    {.outputs = keys,
                                                     .inputs = width,
                                                     .rank = config.decay_rank,
                                                     .activation = FindActivation("tanh")}));
    ESS_ASSIGN_OR_RETURN(mixer->key_, linear("k_proj.linear", keys, width));
    ESS_ASSIGN_OR_RETURN(mixer->value_, linear("v_proj.linear", values, width));
    ESS_ASSIGN_OR_RETURN(mixer->gate_, linear("g_proj.linear", values, width));
    ESS_ASSIGN_OR_RETURN(mixer->bonus_,
                         tensors.Take(prefix + "bonus", {heads.count, heads.key_dim}));
    ESS_ASSIGN_OR_RETURN(
        mixer->norm_, TakeLayerNorm(tensors, prefix + "g_norm", values, config.sizes.norm_epsilon));
    ESS_ASSIGN_OR_RETURN(mixer->output_, linear("o_proj", width, values));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.heads.key_dim);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, PromptState&, int64_t mixer,
                                 ForwardPass& pass) const override {
    const FlaHeads& heads = config_.heads;
    const at::Tensor wide = x.to(at::kFloat);  // Of all that forms the operators.
    const at::Tensor delta = TokenShift(wide);
    const std::vector<at::Tensor> mixtures = Mixtures(wide, delta);
    // x + delta * mixture: [L, D].
    const auto shifted = [&](size_t which) { return wide.addcmul(delta, mixtures[which]); };
    const auto as_x = [&](const at::Tensor& all) { return all.to(x.scalar_type()); };
    const auto split = [&](const at::Tensor& all, int64_t head_dim) {  // [L, H d] => [L, H, d]
      return all.view({x.size(0), heads.count, head_dim});
    };
    const at::Tensor log_decays = decay_(shifted(1)).exp().neg_();
    const GatedScanInputs scan = {.head_count = heads.count,
                                  .queries = split(receptance_(shifted(0)), heads.key_dim),
                                  .keys = split(key_(shifted(2)), heads.key_dim),
                                  .values = split(value_(as_x(shifted(3))), heads.value_dim),
                                  .log_gates = split(log_decays, heads.key_dim),
                                  .read_before = true};
    ESS_ASSIGN_OR_RETURN(at::Tensor y, GatedScan(scan, mixer, pass));
    if (!y.defined()) return y;
    // What the current position adds at once, outside of the recurrence: [L, H, 1].
    const at::Tensor bonus = scan.queries.mul(scan.keys).mul(bonus_).sum(-1, /*keepdim=*/true);
    y.add_(scan.values.mul(bonus));
    return output_(norm_.Heads(y).mul(at::silu(gate_(as_x(shifted(4))))).to(x.scalar_type()));
  }

 private:
  // How much of the position before each branch sees, made from the input: kMixtures times [L, D].
  std::vector<at::Tensor> Mixtures(const at::Tensor& x, const at::Tensor& delta) const {
    const int64_t rank = config_.mixture_rank;
    const at::Tensor inner = mixture_(x, delta).tanh_();  // [L, kMixtures rank]
    std::vector<at::Tensor> mixtures;
    for (int64_t which = 0; which < kMixtures; ++which) {
      const at::Tensor up = mixture_up_.weight.narrow(1, which * rank, rank);  // [D, rank]
      const Linear part{.weight = up, .bias = mixture_bias_[which]};
      mixtures.push_back(part(inner.narrow(1, which * rank, rank)));
    }
    return mixtures;
  }

  Rwkv6Config config_;
  ShiftedLinear mixture_;    // [kMixtures rank, D]
  Linear mixture_up_;        // [D, kMixtures rank]
  at::Tensor mixture_bias_;  // [kMixtures, D]
  Linear receptance_, key_, value_, gate_;
  LowRank decay_;
  at::Tensor bonus_;  // [H, N]
  LayerNorm norm_;    // [H d]
  Linear output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateRwkv6(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const Rwkv6Config rwkv, ReadRwkv6(config));
  const int64_t width = rwkv.sizes.hidden_size;
  const int64_t inner = rwkv.sizes.intermediate_size;
  const auto take_feed_forward = [&](const std::string& prefix) -> absl::StatusOr<RwkvFeedForward> {
    const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
      return TakeLinear(tensors, prefix + name, outputs, inputs, /*bias=*/false);
    };
    RwkvFeedForward taken;
    ESS_ASSIGN_OR_RETURN(taken.key.projection, linear("key.linear", inner, width));
    ESS_ASSIGN_OR_RETURN(taken.key.mu, tensors.Take(prefix + "key.mu", {width}));
    ESS_ASSIGN_OR_RETURN(taken.value, linear("value", width, inner));
    ESS_ASSIGN_OR_RETURN(taken.receptance.projection, linear("receptance.linear", width, width));
    ESS_ASSIGN_OR_RETURN(taken.receptance.mu, tensors.Take(prefix + "receptance.mu", {width}));
    return taken;
  };
  return MakeRwkvDecoder(
      "rwkv6", rwkv.sizes, tensors, device,
      [&](const std::string& prefix, int64_t) { return Rwkv6Mixer::Take(tensors, rwkv, prefix); },
      take_feed_forward);
}

absl::StatusOr<InitialWeights> Rwkv6InitialWeights(const ConfigReader& config) {
  const double gain = std::exp2(-2.5);
  return ReadInitialWeights(config, {},
                            {{.names = "*.lora.0.weight", .distribution = Constant(0)},
                             {.names = "*.lora.2.weight", .distribution = LowRankStart()},
                             {.names = "*_norm.weight", .distribution = Constant(1)},
                             {.names = "*.attn.*.weight", .distribution = XavierUniform(gain)},
                             {.names = "*.mu", .distribution = Constant(0)},
                             {.names = "*.x_bias", .distribution = Constant(0)},
                             {.names = "*.bonus", .distribution = Constant(0)}});
}

nlohmann::json TinyRwkv6Config() {
  return {{"model_type", "rwkv6"},   {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24}, {"num_hidden_layers", 3}, {"num_heads", 4},
          {"proj_low_rank_dim", 3},  {"gate_low_rank_dim", 5}};
}

}  // namespace

Architecture Rwkv6Architecture() {
  return FlaArchitecture("rwkv6", CreateRwkv6, TinyRwkv6Config, Rwkv6InitialWeights);
}

}  // namespace ess::models
