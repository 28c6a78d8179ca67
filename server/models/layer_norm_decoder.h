// The decoder of the GPT line: layer norms, attention with positions that are learned, rotary or
// slopes of the scores (ALiBi), and a plain feed-forward beside or after it. An architecture reads
// its config into LayerNormDecoderConfig, and takes each layer's tensors by its own names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/status_macros.h"
#include "server/models/architecture.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/layer_norm.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary_scaling.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct LayerNormLayer {
  LayerNorm attention_norm;
  std::optional<LayerNorm> feed_forward_norm;  // None: both read attention_norm's output.
  Linear query, key, value, output;
  std::optional<LayerNorm> query_norm, key_norm;  // Of each head, before it rotates.
  Linear up, down;
};

// Tensors outside the layers.
struct LayerNormDecoderNames {
  std::string_view embedding;           // "NAME.weight", and so on.
  std::string_view position_embedding;  // Empty: none is learned.
  std::string_view norm;
  std::string_view head = "lm_head";
  bool head_bias = false;
};

struct LayerNormDecoderConfig {
  LayerNormDecoderNames names;
  int64_t vocabulary_size = 0;  // V
  int64_t hidden_size = 0;      // D
  int64_t layer_count = 0;
  int64_t head_count = 0;         // H
  int64_t head_dim = 0;           // d
  int64_t intermediate_size = 0;  // I
  int64_t max_positions = 0;
  double norm_epsilon = 0;
  ActivationInPlace activation = nullptr;
  // hidden + attention + feed-forward of the same hidden, instead of one after the other.
  bool parallel_residual = false;
  std::vector<double> attention_scales;  // Factor of Q K^T, by layer.
  std::optional<RotaryScaling> rotary;
  bool alibi = false;  // Press et al. 2021 (arXiv:2108.12409)
};

// A family's defaults of the keys that transformers calls hidden_size, num_attention_heads, ...
struct LayerNormDecoderDefaults {
  int64_t vocabulary_size, hidden_size, layer_count, head_count, max_positions;
  std::string_view activation;
};

// The sizes, the activation `hidden_act` and the usual scales of attention.
// Errors: those of ConfigReader; kDataLoss  heads that do not share out the hidden size.
absl::StatusOr<LayerNormDecoderConfig> ReadLayerNormDecoder(
    const ConfigReader& config, const LayerNormDecoderDefaults& defaults);

// Factors 1 / sqrt(head_dim).
std::vector<double> UsualAttentionScales(int64_t layer_count, int64_t head_dim);

// head_dim of heads that share out the hidden size, whose keys are these. kDataLoss when they
// cannot.
absl::StatusOr<int64_t> SharedHeadDim(const ConfigReader& config,
                                      const LayerNormDecoderConfig& decoder,
                                      std::string_view hidden_key = "hidden_size",
                                      std::string_view heads_key = "num_attention_heads");

// Distributes the rows of a fused projection: for each of `group_count` groups the queries of its
// heads, then a key, then a value, each of `head_dim` rows.
void SplitGroupedRows(const Linear& fused, int64_t group_count, int64_t head_dim,
                      LayerNormLayer& layer);

// Takes the tensors of one layer.
using TakeLayerNormLayer = absl::FunctionRef<absl::StatusOr<LayerNormLayer>(int64_t layer_index)>;

// Errors: those of TensorSource and `take_layer`.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeLayerNormDecoder(
    const std::string& model_type, const LayerNormDecoderConfig& config, TensorSource& tensors,
    const std::string& device, TakeLayerNormLayer take_layer);

// The architecture whose configs `Read` reads, and of whose layers `TakeLayer` takes the tensors:
//   absl::StatusOr<Config> Read(const ConfigReader&), with a LayerNormDecoderConfig Config::decoder
//   absl::StatusOr<LayerNormLayer> TakeLayer(TensorSource&, const Config&, int64_t layer_index)
// `architecture` says the rest.
template <auto Read, auto TakeLayer>
Architecture LayerNormArchitecture(Architecture architecture) {
  architecture.create =
      [](const ConfigReader& config, TensorSource& tensors,
         const std::string& device) -> absl::StatusOr<std::unique_ptr<SequenceModel>> {
    ESS_ASSIGN_OR_RETURN(const std::string type, config.String("model_type", std::nullopt));
    ESS_ASSIGN_OR_RETURN(const auto family, Read(config));
    return MakeLayerNormDecoder(type, family.decoder, tensors, device, [&](int64_t layer_index) {
      return TakeLayer(tensors, family, layer_index);
    });
  };
  return architecture;
}

}  // namespace ess::models
