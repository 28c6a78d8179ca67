// The decoder of flash-linear-attention: pre-norm blocks of a mixer and a gated feed-forward, RMS
// norms throughout. An architecture brings its mixer; listed layers may be softmax attention
// instead.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/models/architecture.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/gated_output.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// What all of them read from their configs.
struct FlaSizes {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // I
  int64_t layer_count = 0;
  double norm_epsilon = 0;
};
struct FlaDefaults {
  int64_t layer_count = 24;
  double hidden_ratio = 4;
};
// Errors: those of ConfigReader.
absl::StatusOr<FlaSizes> ReadFlaSizes(const ConfigReader& config, const FlaDefaults& defaults);

// Heads of a mixer whose widths are shares of the model's.
struct FlaHeads {
  int64_t count = 0;      // H
  int64_t groups = 0;     // G: heads share keys and values.
  int64_t key_dim = 0;    // N, of one head.
  int64_t value_dim = 0;  // d, of one head.
};
struct FlaHeadDefaults {
  int64_t count;
  double expand_k, expand_v;
};
// Reads `num_heads`, `num_kv_heads`, `expand_k` and `expand_v`.
// Errors: those of ConfigReader; kDataLoss  widths that are no multiples of the heads.
absl::StatusOr<FlaHeads> ReadFlaHeads(const ConfigReader& config, int64_t hidden_size,
                                      const FlaHeadDefaults& defaults);

// Reads `use_output_gate`, `elementwise_affine` and `fuse_norm`, which renames a gated norm.
// Errors: those of ConfigReader.
absl::StatusOr<GatedOutputLayout> ReadFlaOutput(const ConfigReader& config, const FlaSizes& sizes,
                                                const FlaHeads& heads);

// How layers end that have no gate and norm all heads as one, `hidden_size` wide. The public layers
// do not hand norm_eps to this norm.
GatedOutputLayout UngatedOutput(int64_t hidden_size, bool norm_weight);

// Taps of the short convolutions; 0 where `use_short_conv` is false.
absl::StatusOr<int64_t> ReadShortConvolution(const ConfigReader& config, bool used_by_default);

// An activation by the name that flash-linear-attention gives it. Null where the config has none
// and `default_name` is empty.
absl::StatusOr<ActivationInPlace> ReadFlaActivation(const ConfigReader& config,
                                                    const std::string& key,
                                                    const std::string& default_name);

// The whole part of a width, rounded up to a multiple.
int64_t RoundUp(double width, int64_t multiple);

// kFailedPrecondition, naming `product`, where `width` is above kMaxConfigSize.
absl::Status CheckWidth(const ConfigReader& config, int64_t width, std::string_view product);

// `count` times `ratio`, a whole number. Errors: kDataLoss, naming `product`, where it is none.
absl::StatusOr<int64_t> WholeProduct(const ConfigReader& config, int64_t count, double ratio,
                                     std::string_view product);

// Takes the mixer of a layer, whose tensors start with this prefix ("layers.3.attn.").
using TakeFlaMixer = absl::FunctionRef<absl::StatusOr<std::unique_ptr<SequenceMixer>>(
    const std::string& prefix, int64_t layer_index)>;

// Takes every tensor. Reads `attn` and `attnres_block_size`. Errors: those of ConfigReader and
// TensorSource.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeFlaDecoder(
    const std::string& model_type, const ConfigReader& config, const FlaSizes& sizes,
    TensorSource& tensors, const std::string& device, TakeFlaMixer take_mixer);

// The architecture of one model type. Its checkpoints may carry the prefix "model." and, when they
// are old, rotary frequencies. Its weights start by the common scheme; `initial_weights`, if any,
// replaces it.
Architecture FlaArchitecture(std::string model_type, decltype(Architecture::create) create,
                             nlohmann::json (*tiny_config)(),
                             decltype(Architecture::initial_weights) initial_weights = nullptr);

}  // namespace ess::models
