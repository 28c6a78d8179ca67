// Gated DeltaNet: a short convolution of queries, keys and values, then the gated delta rule, then
// a gated norm of each head.
// Source: Yang et al. 2024 (arXiv:2412.06464), section 3.3.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct GatedDeltaConfig {
  int64_t hidden_size = 0;     // D
  int64_t head_count = 0;      // H: heads of values, each with a state of its own.
  int64_t key_head_count = 0;  // G: head h reads queries and keys of group h G / H.
  int64_t key_dim = 0;         // N
  int64_t value_dim = 0;       // d
  int64_t convolution_taps = 0;
  ActivationInPlace activation = nullptr;
  double norm_epsilon = 0;
  // Whether the rows of the projections are sorted by key head, each with its queries, keys, values
  // and output gates together (Qwen3-Next); else by kind, in projections of their own (Qwen3.5).
  bool rows_by_key_head = false;

  int64_t key_width() const { return key_head_count * key_dim; }
  int64_t value_width() const { return head_count * value_dim; }
};

// The keys linear_num_value_heads, linear_num_key_heads, linear_key_head_dim,
// linear_value_head_dim and linear_conv_kernel_dim, with the defaults of Qwen3-Next.
// Errors: those of ConfigReader; kDataLoss  head counts that do not fit together.
absl::Status ReadGatedDelta(const ConfigReader& config, GatedDeltaConfig& delta);

// Takes "MODULEin_proj_qkvz", "MODULEconv1d", ... Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeGatedDeltaMixer(TensorSource& tensors,
                                                                   const std::string& module,
                                                                   const GatedDeltaConfig& config);

}  // namespace ess::models
