#include "server/models/linear_attn.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>

#include "server/base/status_macros.h"
#include "server/models/fla_decoder.h"
#include "server/models/layers/feature_map.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/head_scan.h"
#include "server/models/layers/linear.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

struct LinearAttnConfig {
  FlaSizes sizes;
  FlaHeads heads;  // Before the feature map.
  FeatureMap::Kind feature_map = FeatureMap::Kind::kIdentity;
  bool one_feature_map = false;  // Of queries and keys.
  bool queries_sum_to_one = false, keys_sum_to_one = false;
  bool normalized = false;  // Rows of T sum to 1.
  bool norm_weight = true;

  int64_t states() const { return FeatureCount(feature_map, heads.key_dim); }
};

absl::StatusOr<LinearAttnConfig> ReadLinearAttn(const ConfigReader& config) {
  LinearAttnConfig linear;
  ESS_ASSIGN_OR_RETURN(linear.sizes, ReadFlaSizes(config, {}));
  ESS_ASSIGN_OR_RETURN(linear.heads, ReadFlaHeads(config, linear.sizes.hidden_size,
                                                  {.count = 4, .expand_k = 1, .expand_v = 1}));
  ESS_ASSIGN_OR_RETURN(const std::string map,
                       config.Choice("feature_map", "elementwise_product", FeatureMapNames()));
  linear.feature_map = FindFeatureMap(map);
  ESS_ASSIGN_OR_RETURN(linear.one_feature_map, config.Bool("tie_feature_map_qk", false));
  ESS_ASSIGN_OR_RETURN(linear.queries_sum_to_one, config.Bool("norm_q", false));
  ESS_ASSIGN_OR_RETURN(linear.keys_sum_to_one, config.Bool("norm_k", false));
  ESS_ASSIGN_OR_RETURN(linear.normalized, config.Bool("norm_feature_map", false));
  ESS_ASSIGN_OR_RETURN(linear.norm_weight, config.Bool("elementwise_affine", true));
  return linear;
}

at::Tensor SumToOne(const at::Tensor& x) { return x.div(x.sum(-1, /*keepdim=*/true).add_(1e-4)); }

class LinearAttnMixer final : public SequenceMixer {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceMixer>> Take(TensorSource& tensors,
                                                             const LinearAttnConfig& config,
                                                             const std::string& prefix) {
    auto mixer = std::make_unique<LinearAttnMixer>();
    mixer->config_ = config;
    const FlaHeads& heads = config.heads;
    const int64_t width = config.sizes.hidden_size;
    const auto take = [&](const std::string& name, int64_t outputs) {
      return TakeLinear(tensors, prefix + name, outputs, width, /*bias=*/false);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_, take("q_proj", heads.count * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->key_, take("k_proj", heads.groups * heads.key_dim));
    ESS_ASSIGN_OR_RETURN(mixer->value_, take("v_proj", heads.groups * heads.value_dim));
    const auto take_map = [&](const std::string& name) {
      return TakeFeatureMap(tensors, prefix + name, config.feature_map, heads.key_dim);
    };
    ESS_ASSIGN_OR_RETURN(mixer->query_map_, take_map("feature_map_q"));
    mixer->key_map_ = mixer->query_map_;
    if (!config.one_feature_map) {
      ESS_ASSIGN_OR_RETURN(mixer->key_map_, take_map("feature_map_k"));
    }
    ESS_ASSIGN_OR_RETURN(mixer->output_, TakeGatedOutput(tensors, prefix,
                                                         {.head_count = heads.count,
                                                          .head_dim = heads.value_dim,
                                                          .hidden_size = width,
                                                          .norm = "norm",
                                                          .norm_weight = config.norm_weight,
                                                          .norm_epsilon = config.sizes.norm_epsilon,
                                                          .gate = false}));
    return mixer;
  }

  Mixer Describe() const override {
    return RecurrenceMixer("DiagonalRecurrence", config_.heads.count, config_.heads.value_dim,
                           config_.states());
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    const auto heads = [](const at::Tensor& rows, int64_t head_dim) {  // [L, H d] => [L, H, d]
      return rows.view({rows.size(0), -1, head_dim});
    };
    const at::Tensor wide = x.to(at::kFloat);                                     // Of both.
    at::Tensor queries = query_map_(heads(query_(wide), config_.heads.key_dim));  // [L, H, N]
    at::Tensor keys = key_map_(heads(key_(wide), config_.heads.key_dim));         // [L, G, N]
    if (config_.queries_sum_to_one) queries = SumToOne(queries);
    if (config_.keys_sum_to_one) keys = SumToOne(keys);
    queries = queries.mul(1 / std::sqrt(static_cast<double>(config_.states())));
    if (config_.normalized) queries = queries.div(RowSums(queries, keys).add_(1e-10));
    const GatedScanInputs scan = {
        .head_count = config_.heads.count,
        .queries = queries,
        .keys = keys,
        .values = heads(value_(x), config_.heads.value_dim),
        .log_gates = at::zeros({x.size(0), 1, 1}, x.options().dtype(at::kFloat))};
    ESS_ASSIGN_OR_RETURN(const at::Tensor y, GatedScan(scan, mixer, pass));
    return y.defined() ? output_(y, x) : y;
  }

 private:
  // q_i . (k_0 + ... + k_i): [L, H, 1].
  static at::Tensor RowSums(const at::Tensor& queries, const at::Tensor& keys) {
    const int64_t heads = queries.size(1);
    const at::Tensor sums = keys.cumsum(0);
    return HeadsOf(sums, heads, 0, heads).transpose(0, 1).mul(queries).sum(-1, /*keepdim=*/true);
  }

  LinearAttnConfig config_;
  Linear query_, key_, value_;
  FeatureMap query_map_, key_map_;
  GatedOutput output_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateLinearAttn(const ConfigReader& config,
                                                                TensorSource& tensors,
                                                                const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const LinearAttnConfig linear, ReadLinearAttn(config));
  return MakeFlaDecoder("linear_attn", config, linear.sizes, tensors, device,
                        [&](const std::string& prefix, int64_t) {
                          return LinearAttnMixer::Take(tensors, linear, prefix);
                        });
}

// Shared keys and values.
nlohmann::json TinyLinearAttnConfig() {
  return {{"model_type", "linear_attn"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_heads", 4},
          {"num_kv_heads", 2}};
}

}  // namespace

Architecture LinearAttnArchitecture() {
  return FlaArchitecture("linear_attn", CreateLinearAttn, TinyLinearAttnConfig);
}

}  // namespace ess::models
