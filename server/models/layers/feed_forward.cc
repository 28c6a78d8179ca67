#include "server/models/layers/feed_forward.h"

#include <ATen/ATen.h>

namespace ess::models {

at::Tensor GatedFeedForward::Inner(const at::Tensor& x) const {
  at::Tensor gated = gate(x);
  activation(gated);
  return gated.mul_(up(x));
}

at::Tensor MixtureOfExperts::operator()(const at::Tensor& x) const {
  const at::Tensor probabilities = at::softmax(router(x), -1, at::kFloat);  // [L, experts]
  auto [weights, indices] = probabilities.topk(chosen, -1);                 // [L, chosen]
  if (normalized) weights = weights / weights.sum(-1, /*keepdim=*/true);
  at::Tensor mixed = at::zeros_like(x);
  for (size_t e = 0; e < experts.size(); ++e) {
    // Token and rank of each choice of this expert: [choices].
    const std::vector<at::Tensor> where =
        indices.eq(static_cast<int64_t>(e)).nonzero().unbind(/*dim=*/1);
    if (where[0].numel() == 0) continue;
    const GatedFeedForward& expert = experts[e];
    const at::Tensor answers = expert.down(expert.Inner(x.index_select(0, where[0])));
    const at::Tensor weight = weights.index({where[0], where[1]}).unsqueeze(1);
    mixed.index_add_(0, where[0], answers.mul(weight).to(x.scalar_type()));
  }
  return mixed;
}

}  // namespace ess::models
