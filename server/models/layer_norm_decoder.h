// The decoder of the GPT line: layer norms, attention with positions that are learned, rotary or
// slopes of the scores (ALiBi), and a plain feed-forward beside or after it. An architecture takes
// its tensors by its own names and lays them out as here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
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

struct LayerNormDecoderConfig {
  int64_t vocabulary_size = 0;  // V
  int64_t hidden_size = 0;      // D
  int64_t layer_count = 0;
  int64_t head_count = 0;  // H
  int64_t head_dim = 0;    // d
  int64_t max_positions = 0;
  ActivationInPlace activation = nullptr;
  // hidden + attention + feed-forward of the same hidden, instead of one after the other.
  bool parallel_residual = false;
  std::vector<double> attention_scales;  // Factor of Q K^T, by layer.
  std::optional<RotaryScaling> rotary;
  bool alibi = false;  // Press et al. 2021 (arXiv:2108.12409)
};

struct LayerNormDecoderWeights {
  at::Tensor embedding;           // [V, D]
  at::Tensor position_embedding;  // [max_positions, D], or undefined.
  std::vector<LayerNormLayer> layers;
  LayerNorm norm;
  Linear head;
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
absl::StatusOr<int64_t> SharedHeadDim(const LayerNormDecoderConfig& config,
                                      std::string_view hidden_key = "hidden_size",
                                      std::string_view heads_key = "num_attention_heads");

// Distributes the rows of a fused projection: for each of `group_count` groups the queries of its
// heads, then a key, then a value, each of `head_dim` rows.
void SplitGroupedRows(const Linear& fused, int64_t group_count, int64_t head_dim,
                      LayerNormLayer& layer);

// `tensors` says what the weights amount to.
std::unique_ptr<SequenceModel> MakeLayerNormDecoder(const std::string& model_type,
                                                    LayerNormDecoderConfig config,
                                                    LayerNormDecoderWeights weights,
                                                    const TensorSource& tensors,
                                                    const std::string& device);

}  // namespace ess::models
