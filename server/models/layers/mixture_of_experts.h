// A feed-forward of which each token uses a few parts, the experts that a router chooses for it.
// Source: Shazeer et al. 2017 (arXiv:1701.06538).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/feed_forward.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Which experts a token goes to, and how much each counts.
struct ExpertRouting {
  int64_t chosen = 0;       // Experts of a token: those of the largest scores.
  bool sigmoid = false;     // Scores are sigmoids of the router's output instead of its softmax.
  bool normalized = false;  // The weights of the chosen sum to 1; then they are scaled.
  double scale = 1;
  // Only experts of the best `chosen_groups` groups may be chosen. A group is as good as the sum of
  // its best `group_leaders` scores. Source: Liu et al. 2024 (arXiv:2405.04434), section 2.2.2.
  int64_t group_count = 1;
  int64_t chosen_groups = 1;
  int64_t group_leaders = 1;
};

// For each token its experts and their weights.
struct ExpertChoice {
  at::Tensor indices;  // [L, chosen]
  at::Tensor weights;  // [L, chosen] float32
};

// `logits` [L, experts] float32. `correction` [experts], where it is defined, is added to the
// scores that choose, and not to the weights (Wang et al. 2024, arXiv:2408.15664).
ExpertChoice ChooseExperts(const at::Tensor& logits, const at::Tensor& correction,
                           const ExpertRouting& routing);

// Immutable after loading.
struct MixtureOfExperts {
  Linear router;          // [experts, D] float32
  at::Tensor correction;  // [experts] float32, or undefined.
  std::vector<GatedFeedForward> experts;
  std::optional<GatedFeedForward> shared;  // Of every token.
  std::optional<Linear> shared_gate;       // [1, D]: its sigmoid weighs the shared expert.
  ExpertRouting routing;

  // x [L, D] => [L, D].
  at::Tensor operator()(const at::Tensor& x) const;
};

struct ExpertsConfig {
  int64_t count = 0;
  int64_t intermediate_size = 0;
  ExpertRouting routing;
  bool corrected = false;                // Whether scores have a correction.
  int64_t shared_intermediate_size = 0;  // Of the shared expert; 0: none.
  bool shared_bias = false;
  std::vector<bool> layers;  // Which layers have experts.
  // How a layer's tensors are named.
  std::string_view module = "mlp.", stacked_module = "mlp.";
  std::string_view router = "gate";
  std::string_view shared = "shared_experts.";
  std::string_view shared_gate;                                             // Empty: none.
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";  // Empty: only stacked.
  std::string_view stacked_gate_up = "experts.gate_up_proj", stacked_down = "experts.down_proj";
};

// Sizes that fit together. Errors: kDataLoss.
absl::Status CheckExperts(const ConfigReader& config, const ExpertsConfig& experts);

// Takes the experts of the layer whose tensors start with `layer` ("layers.3."): one by one, or
// stacked as "mlp.experts.gate_up_proj" [experts, 2 I, D] in its stacked module, gate's rows first,
// and "mlp.experts.down_proj" [experts, D, I], which is how transformers 5 holds them. Errors:
// those of TensorSource::Take.
absl::StatusOr<MixtureOfExperts> TakeExperts(TensorSource& source, const std::string& layer,
                                             const ExpertsConfig& config, int64_t width,
                                             ActivationInPlace activation);

}  // namespace ess::models
