#include "server/models/qwen_experts.h"

#include <algorithm>
#include <vector>

#include "server/base/status_macros.h"

namespace ess::models {
namespace {

absl::StatusOr<std::vector<bool>> ReadSparseLayers(const ConfigReader& config,
                                                   int64_t layer_count) {
  ESS_ASSIGN_OR_RETURN(const int64_t step, config.Size("decoder_sparse_step", 1));
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> dense,
                       config.Indices("mlp_only_layers", layer_count));
  std::vector<bool> sparse;
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    const bool only_dense = std::find(dense.begin(), dense.end(), layer) != dense.end();
    sparse.push_back(!only_dense && (layer + 1) % step == 0);
  }
  return sparse;
}

}  // namespace

absl::StatusOr<ExpertsConfig> ReadQwenExperts(const ConfigReader& config, int64_t layer_count,
                                              const QwenExpertsDefaults& defaults) {
  ExpertsConfig experts;
  ESS_ASSIGN_OR_RETURN(experts.count,
                       config.Size("num_experts", "num_local_experts", defaults.count));
  ESS_ASSIGN_OR_RETURN(experts.routing.chosen, config.Size("num_experts_per_tok", defaults.chosen));
  ESS_ASSIGN_OR_RETURN(experts.intermediate_size,
                       config.Size("moe_intermediate_size", defaults.intermediate_size));
  ESS_ASSIGN_OR_RETURN(experts.routing.normalized,
                       config.Bool("norm_topk_prob", defaults.normalized));
  if (defaults.shared_intermediate_size > 0) {
    ESS_ASSIGN_OR_RETURN(
        experts.shared_intermediate_size,
        config.Size("shared_expert_intermediate_size", defaults.shared_intermediate_size));
    experts.shared = "shared_expert.";
    experts.shared_gate = "shared_expert_gate";
  }
  ESS_ASSIGN_OR_RETURN(experts.layers, ReadSparseLayers(config, layer_count));
  ESS_RETURN_IF_ERROR(CheckExperts(config, experts));
  return experts;
}

}  // namespace ess::models
