// Attention whose query heads share key and value heads in groups, rotary positions on both where
// the model has them.
// Source: Ainslie et al. 2023 (arXiv:2305.13245).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/models/layers/attention_layer.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct GroupedQueryConfig {
  int64_t hidden_size = 0;           // D
  int64_t head_count = 0;            // H
  int64_t key_value_head_count = 0;  // G
  int64_t head_dim = 0;              // d
  bool bias = false;
  bool fused = false;  // qkv_proj in the checkpoint (Phi-3).
  // An RMS norm of every query and key head before it rotates.
  bool query_key_norm = false;
  std::string_view query_norm = "q_norm", key_norm = "k_norm";
  double norm_epsilon = 0;
  RmsNormKind norm_kind = RmsNormKind::kLlama;
  double scale = 0;
  double soft_cap = 0;  // 0: none.
  int64_t window = 0;   // 0: full attention.
  // Whether q_proj makes a gate too, [query; gate] for each head, whose sigmoid multiplies what the
  // heads mix (Qwen3-Next).
  bool gated = false;
};

// Takes "MODULEq_proj", "MODULEk_proj", "MODULEv_proj". Errors: those of TensorSource::Take.
absl::StatusOr<std::unique_ptr<AttentionLayer>> TakeGroupedQueryAttention(
    TensorSource& source, const std::string& module, const GroupedQueryConfig& config);

}  // namespace ess::models
