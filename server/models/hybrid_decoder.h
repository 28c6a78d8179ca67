// The stack whose layers differ in what mixes: attention, recurrences, convolutions, two of them
// side by side, or nothing. An architecture takes each layer by its own names and lays it out as
// here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/models/gated_decoder.h"
#include "server/models/initial_weights.h"
#include "server/models/layers/attention_mixer.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/rotary_scaling.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// What a layer does with each position: [L, D] => [L, D].
using FeedForward = std::function<at::Tensor(const at::Tensor& x)>;

// One of the mixers of a layer.
struct HybridMixer {
  std::unique_ptr<SequenceMixer> mixer;
  std::string_view kind;  // "attention", "mamba": in its name, where the layer has several.
  double input_scale = 1;
  double output_scale = 1;
};

// hidden += mixers(mixer_norm(hidden)); hidden += feed_forward(feed_forward_norm(hidden)).
struct HybridLayer {
  RmsNorm mixer_norm;
  std::vector<HybridMixer> mixers;  // In the order of computation; their outputs are added up.
  RmsNorm feed_forward_norm;
  FeedForward feed_forward;  // May be empty.
};

struct HybridDecoderConfig {
  int64_t vocabulary_size = 0;  // V
  int64_t hidden_size = 0;      // D
  int64_t layer_count = 0;
  int64_t max_positions = 0;  // 0: no limit.
  double norm_epsilon = 0;
  RmsNormKind norm_kind = RmsNormKind::kLlama;
  std::optional<RotaryScaling> rotary;
  double embedding_scale = 1;
  double logit_scale = 1;
  bool float32_residual = false;  // Whatever the weights' dtype.
  std::string_view embedding = "embed_tokens", norm = "norm";
};

// Takes the layer whose tensors start with `prefix`: "layers.3.".
using TakeHybridLayer =
    absl::FunctionRef<absl::StatusOr<HybridLayer>(const std::string& prefix, int64_t layer)>;

// Takes embedding, layers, norm and head. Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeHybridDecoder(const std::string& model_type,
                                                                 const HybridDecoderConfig& config,
                                                                 TensorSource& tensors,
                                                                 const std::string& device,
                                                                 TakeHybridLayer take_layer);

// What a config of the gated family says of stack and attention.
HybridDecoderConfig HybridOf(const GatedDecoderConfig& config);
AttentionMixerConfig AttentionOf(const GatedDecoderConfig& config);

// Which layers attend: those of which the list under `key` says one of `attention`; the rest of it
// is of `others`. Without the key, those of `otherwise`. Errors: those of ConfigReader.
absl::StatusOr<std::vector<bool>> ReadLayerKinds(const ConfigReader& config, std::string_view key,
                                                 const std::vector<std::string>& attention,
                                                 const std::vector<std::string>& others,
                                                 std::vector<bool> otherwise);

// The layers that the list of indices under `key` has. Errors: those of ConfigReader.
absl::StatusOr<std::vector<bool>> ReadListedLayers(const ConfigReader& config, std::string_view key,
                                                   int64_t layer_count);

// How hybrids with Mamba or Mamba-2 start in transformers: rates of decay of 1, 2, ..., and biases
// of time steps of 1 in Mamba-2. `padding`: pad_token_id of configs that are silent. Errors: those
// of ConfigReader.
absl::StatusOr<InitialWeights> MambaHybridInitialWeights(const ConfigReader& config,
                                                         std::optional<int64_t> padding);

// How a layer's norms are called.
struct HybridNormNames {
  std::string_view mixer = "input_layernorm", feed_forward = "pre_ff_layernorm";
};

// Takes a layer of these norms and one mixer; its feed-forward is left to the caller.
// Errors: those of TensorSource and `take_mixer`.
absl::StatusOr<HybridLayer> TakeMixerLayer(
    TensorSource& tensors, const std::string& prefix, const GatedDecoderConfig& config,
    const HybridNormNames& norms,
    absl::FunctionRef<absl::StatusOr<std::unique_ptr<SequenceMixer>>()> take_mixer);

// Takes the experts of a layer that has them, else "PREFIXMODULEgate_proj", ...
// Errors: those of TensorSource.
absl::StatusOr<FeedForward> TakeFeedForward(TensorSource& tensors, const std::string& prefix,
                                            const std::string& module, size_t layer_index,
                                            const GatedDecoderConfig& config);

}  // namespace ess::models
