// Multi-head latent attention: keys and values of all heads are read from one narrow latent vector
// of each position, and positions rotate in dimensions of their own, whose keys all heads share.
// Source: Liu et al. 2024 (arXiv:2405.04434), section 2.1.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/layers/attention_layer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct LatentAttentionConfig {
  int64_t hidden_size = 0;  // D
  int64_t head_count = 0;   // H
  int64_t query_rank = 0;   // Queries are read from a latent vector too; 0: from the hidden state.
  int64_t key_value_rank = 0;  // R
  int64_t plain_dim = 0;       // Dimensions of a query and key head that do not rotate,
  int64_t rotary_dim = 0;      // and those that do.
  int64_t value_dim = 0;       // dv
  bool interleaved = true;     // Pairs that rotate are neighbours, not half of rotary_dim apart.
  bool bias = false;           // Of the projections to the latent vectors.
  double scale = 0;
};

// Takes "MODULEkv_a_proj_with_mqa", "MODULEkv_b_proj", ... Errors: those of TensorSource::Take.
absl::StatusOr<std::unique_ptr<AttentionLayer>> TakeLatentAttention(
    TensorSource& source, const std::string& module, const LatentAttentionConfig& config);

}  // namespace ess::models
