#include "server/models/gsa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/convolved_projection.h"
#include "server/models/layers/feature_map.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/head_scan.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

constexpr int64_t kChunk = 16;

struct GsaConfig {
  FlaSizes sizes;
  FlaHeads heads;
  int64_t slot_count = 0;        // M
  int64_t convolution_taps = 0;  // 0: no short convolutions.
  int64_t gate_logit_normalizer = 8;
  std::string feature_map;  // Of queries and keys.
  bool norm_weight = true;
};

absl::StatusOr<GsaConfig> ReadGsa(const ConfigReader& config) {
  GsaConfig gsa;
  ESS_ASSIGN_OR_RETURN(gsa.sizes, ReadFlaSizes(config, {}));
  // So the public config spells them when it is made, and expand_k when it is written.
  for (const char* const key : {"exapnd_k", "exapnd_v"}) {
    ESS_RETURN_IF_ERROR(config.Number(key, 1, 1, 1).status());
  }
  ESS_ASSIGN_OR_RETURN(gsa.heads, ReadFlaHeads(config, gsa.sizes.hidden_size,
                                               {.count = 4, .expand_k = 1, .expand_v = 1}));
  if (gsa.heads.count * gsa.heads.value_dim != gsa.sizes.hidden_size) {
    return config.Unsupported("expand_v", "1");
  }
  ESS_ASSIGN_OR_RETURN(
      gsa.slot_count,
      config.Size("num_slots", config.IsNull("num_slots") ? gsa.heads.key_dim : 64));
  ESS_RETURN_IF_ERROR(
      CheckWidth(config, gsa.heads.count * gsa.slot_count, "num_heads * num_slots"));
  ESS_ASSIGN_OR_RETURN(gsa.convolution_taps, ReadShortConvolution(config, false));
  ESS_ASSIGN_OR_RETURN(gsa.gate_logit_normalizer, config.Size("gate_logit_normalizer", 8));
  ESS_ASSIGN_OR_RETURN(gsa.feature_map,
                       config.Choice("feature_map", "swish", {"swish", "relu", "t2r"}));
  ESS_ASSIGN_OR_RETURN(gsa.norm_weight, config.Bool("elementwise_affine", true));
  return gsa;
}

// One prompt's heads; fewer than H heads are groups, as in GatedScanInputs.
struct SlotInputs {
  int64_t head_count = 0;    // H
  at::Tensor queries, keys;  // [L, G, N]
  at::Tensor slots;          // s [L, G, M]: how much of a position goes into each slot.
  at::Tensor log_gates;      // [L, G, M]
};

// What each query finds in the slots: with K_t = K_{t-1} diag(a_t) + k_t s_t^T, o_t = K_t^T q_t.
// [L, H, M] float32. Errors: kCancelled, kDeadlineExceeded, looked at every chunk.
absl::StatusOr<at::Tensor> SlotScores(const SlotInputs& inputs, const ForwardPass& pass) {
  const int64_t length = inputs.queries.size(0);
  const int64_t heads = inputs.head_count;
  const int64_t slot_count = inputs.slots.size(2);
  const auto options = inputs.queries.options().dtype(at::kFloat);
  at::Tensor scores = at::empty({length, heads, slot_count}, options);
  at::Tensor state = at::zeros({heads, inputs.keys.size(2), slot_count}, options);  // [H, N, M]
  for (int64_t first = 0; first < length; first += kChunk) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const int64_t count = std::min(kChunk, length - first);
    const auto chunk = [&](const at::Tensor& x) { return ChunkOf(x, heads, first, count); };
    const at::Tensor queries = chunk(inputs.queries);  // [H, q, N]
    const at::Tensor keys = chunk(inputs.keys);        // [H, q, N]
    const at::Tensor slots = chunk(inputs.slots);      // [H, q, M]
    const at::Tensor sums = LogGatesOf(inputs.log_gates, heads, first, count).cumsum(1);
    const at::Tensor decayed =
        DecaysBetween(sums, sums, /*diagonal=*/0).mul_(slots.unsqueeze(1));  // [H, i, j, M]
    const at::Tensor products = at::bmm(queries, keys.transpose(1, 2));      // [H, i, j]
    // [H, i, 1, j] @ [H, i, j, M] => [H, i, M]
    at::Tensor found = at::matmul(products.unsqueeze(2), decayed).squeeze(2);
    found.addcmul_(at::bmm(queries, state), sums.exp().to(at::kFloat));
    scores.narrow(0, first, count).copy_(found.transpose(0, 1));
    state = state.mul(sums.narrow(1, count - 1, 1).exp().to(at::kFloat))
                .add_(at::bmm(keys.transpose(1, 2), decayed.select(1, count - 1)));
  }
  return scores;
}

class GsaMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const GsaConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<GsaMixer>();
    mixer->config_ = config;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const ActivationInPlace silu = FindActivation("silu");
    const auto take = [&](const std::string& name, int64_t outputs) {
      return TakeConvolvedProjection(tensors, prefix + name, outputs, width,
                                     config.convolution_taps,
                                     config.convolution_taps > 0 ? silu : nullptr);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q", heads.count * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k", heads.groups * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v", heads.groups * heads.value_dim));
    ESS_ASSIGN_OR_RETURN(mixer->forget_,
                         TakeLinear(tensors, prefix + "f_proj", heads.groups * config.slot_count,
                                    width, /*bias=*/false));
    if (config.feature_map == "t2r") {
      ESS_ASSIGN_OR_RETURN(
          mixer->learned_map_,
          TakeFeatureMap(tensors, prefix + "feature_map", FeatureMap::Kind::kT2r, heads.key_dim));
    } else {
      mixer->feature_map_ = FindActivation(config.feature_map);
    }
    ESS_ASSIGN_OR_RETURN(
        mixer->output_, TakeGatedOutput(tensors, prefix, UngatedOutput(width, config.norm_weight)));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.slot_count);
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const FlaHeads& heads = config_.heads;
    const at::Tensor log_gates =
        at::log_sigmoid(forget_(x.to(at::kFloat)).view({x.size(0), -1, config_.slot_count}))
            .div_(static_cast<double>(config_.gate_logit_normalizer));
    const at::Tensor slots = log_gates.expm1().neg_();  // 1 - a
    ESS_ASSIGN_OR_RETURN(const at::Tensor scores,
                         SlotScores({.head_count = heads.count,
                                     .queries = Features(query_.Features(x, heads.key_dim)),
                                     .keys = Features(key_.Features(x, heads.key_dim)),
                                     .slots = slots,
                                     .log_gates = log_gates},
                                    pass));
    const GatedScanInputs scan = {.head_count = heads.count,
                                  .queries = at::softmax(scores, -1),
                                  .keys = slots,
                                  .values = at::silu(value_.Heads(x, heads.value_dim)),
                                  .log_gates = log_gates};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));
    return y.defined() ? output_(at::silu(y).view({x.size(0), 1, -1}), x) : y;
  }

 private:
  at::Tensor Features(at::Tensor x) const {
    if (learned_map_.has_value()) return (*learned_map_)(x);
    feature_map_(x);
    return x;
  }

  GsaConfig config_;
  ConvolvedProjection query_, key_, value_;
  Linear forget_;  // [G M, D]
  ActivationInPlace feature_map_ = nullptr;
  std::optional<FeatureMap> learned_map_;  // Instead.
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateGsa(const ConfigReader& config,
                                                         TensorSource& tensors,
                                                         const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const GsaConfig gsa, ReadGsa(config));
  return MakeFlaDecoder(
      "gsa", config, gsa.sizes, tensors, device,
      [&](const std::string& prefix, int64_t) { return GsaMixer::Take(tensors, gsa, prefix); });
}

// Shared keys and values.
nlohmann::json TinyGsaConfig() {
  return {{"model_type", "gsa"},     {"vocab_size", 31},       {"hidden_size", 16},
          {"intermediate_size", 24}, {"num_hidden_layers", 3}, {"num_heads", 4},
          {"num_kv_heads", 2},       {"num_slots", 5},         {"gate_logit_normalizer", 2}};
}

}  // namespace

Architecture GsaArchitecture() { return FlaArchitecture("gsa", CreateGsa, TinyGsaConfig); }

}  // namespace ess::models
