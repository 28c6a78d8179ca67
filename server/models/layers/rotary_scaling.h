// Rotary position embedding: the kinds of frequency scaling and how config.json asks for them.
// Source: Su et al. 2021 (arXiv:2104.09864); the kinds follow transformers' modeling_rope_utils.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"

namespace ess::models {

struct RotaryScaling {
  enum class Kind { kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3, kProportional };

  Kind kind = Kind::kDefault;
  int64_t head_dim = 0;       // Dimensions of a head that rotate; even.
  int64_t max_positions = 0;  // max_position_embeddings
  double theta = 10000;
  double factor = 1;
  int64_t original_max_positions = 0;                          // kYarn, kLongRope, kLlama3
  double attention_factor = 1;                                 // Multiplies cos and sin.
  double mscale_all_dim = 0;                                   // 0: none.
  double beta_fast = 32, beta_slow = 1;                        // kYarn
  bool truncate = true;                                        // kYarn
  std::vector<double> short_factor, long_factor;               // kLongRope: [head_dim / 2]
  double low_frequency_factor = 1, high_frequency_factor = 4;  // kLlama3
  double rotated_fraction = 1;                                 // kProportional

  // The longest prompt that these frequencies are meant for.
  int64_t PositionLimit() const;

  // What multiplies scores of whole heads, where the family follows mscale_all_dim (DeepSeek).
  double ScoreFactor() const;
};

// How a family spells its rotary parameters, and what they are where its config is silent.
struct RotaryKeys {
  std::string_view theta = "rope_theta";
  double default_theta = 10000;
  // The share of a head's dimensions that rotates, the first ones.
  std::string_view fraction = "partial_rotary_factor";
  double default_fraction = 1;
  bool may_be_partial = false;
  bool yarn_is_longrope = false;  // An older name of it in Phi-3's files.
  // Of parameters by layer type. Only "full_attention" is scaled by a flat rope_scaling.
  std::string_view layer_type = "full_attention";
};

// Reads `rope_theta` with `rope_scaling` {rope_type or type, ...}; or `rope_parameters`, flat or by
// layer type. rope_scaling wins, as in transformers.
// Errors: those of ConfigReader; kDataLoss  an odd number of dimensions, factor lists of another
//         length, frequency bounds the wrong way round.
absl::StatusOr<RotaryScaling> ReadRotaryScaling(const ConfigReader& config, int64_t head_dim,
                                                int64_t max_positions, const RotaryKeys& keys = {});

// Angle per position of each pair of dimensions: float32 [head_dim / 2] on the CPU. kDynamic and
// kLongRope depend on the length of the prompt.
at::Tensor InverseFrequencies(const RotaryScaling& scaling, int64_t length);

}  // namespace ess::models
