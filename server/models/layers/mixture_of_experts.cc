#include "server/models/layers/mixture_of_experts.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/config_reader.h"

namespace ess::models {
namespace {

// Keeps a sum of weights that underflowed from dividing by 0.
constexpr double kLeastSum = 1e-20;

// The scores of experts whose group is out of the race become -infinity.
at::Tensor WithinBestGroups(const at::Tensor& scores, const ExpertRouting& routing) {
  if (routing.group_count == 1) return scores;
  const at::Tensor groups = scores.view({scores.size(0), routing.group_count, -1});
  const at::Tensor group_scores =  // [L, groups]
      std::get<0>(groups.topk(routing.group_leaders, -1)).sum(-1);
  const at::Tensor best = std::get<1>(group_scores.topk(routing.chosen_groups, -1));
  const at::Tensor out = at::ones_like(group_scores, at::kBool).scatter_(1, best, false);
  return groups.masked_fill(out.unsqueeze(2), -std::numeric_limits<double>::infinity())
      .view(scores.sizes());
}

absl::Status TakeStackedExperts(TensorSource& source, const std::string& module,
                                const ExpertsConfig& config, int64_t width,
                                ActivationInPlace activation, MixtureOfExperts& mixture) {
  const int64_t inner = config.intermediate_size;
  ESS_ASSIGN_OR_RETURN(
      const at::Tensor gate_up,
      source.Take(module + std::string(config.stacked_gate_up), {config.count, 2 * inner, width}));
  ESS_ASSIGN_OR_RETURN(const at::Tensor down, source.Take(module + std::string(config.stacked_down),
                                                          {config.count, width, inner}));
  for (int64_t e = 0; e < config.count; ++e) {
    const Linear both{.weight = gate_up.select(0, e)};
    mixture.experts.push_back({.gate = both.Rows(0, inner),
                               .up = both.Rows(inner, inner),
                               .down = {.weight = down.select(0, e)},
                               .activation = activation});
  }
  return absl::OkStatus();
}

}  // namespace

ExpertChoice ChooseExperts(const at::Tensor& logits, const at::Tensor& correction,
                           const ExpertRouting& routing) {
  const at::Tensor scores = routing.sigmoid ? at::sigmoid(logits) : at::softmax(logits, -1);
  const at::Tensor ranked = correction.defined() ? scores + correction : scores;
  ExpertChoice choice;
  choice.indices = std::get<1>(WithinBestGroups(ranked, routing).topk(routing.chosen, -1));
  choice.weights = scores.gather(1, choice.indices);
  if (routing.normalized) {
    choice.weights.div_(choice.weights.sum(-1, /*keepdim=*/true).add_(kLeastSum));
  }
  choice.weights.mul_(routing.scale);
  return choice;
}

at::Tensor MixtureOfExperts::operator()(const at::Tensor& x) const {
  const ExpertChoice choice = ChooseExperts(router(x.to(at::kFloat)), correction, routing);
  at::Tensor mixed = shared ? (*shared)(x) : at::zeros_like(x);
  if (shared_gate) mixed.mul_(at::sigmoid((*shared_gate)(x)));
  for (size_t e = 0; e < experts.size(); ++e) {
    // Token and rank of each choice of this expert: [choices].
    const std::vector<at::Tensor> where =
        choice.indices.eq(static_cast<int64_t>(e)).nonzero().unbind(/*dim=*/1);
    if (where[0].numel() == 0) continue;
    const at::Tensor answers = experts[e](x.index_select(0, where[0]));
    const at::Tensor weight = choice.weights.index({where[0], where[1]}).unsqueeze(1);
    mixed.index_add_(0, where[0], answers.mul(weight).to(x.scalar_type()));
  }
  return mixed;
}

absl::Status CheckExperts(const ConfigReader& config, const ExpertsConfig& experts) {
  const ExpertRouting& routing = experts.routing;
  if (routing.chosen > experts.count) {
    return config.Contradiction(fmt::format("num_experts_per_tok is {}, but there are {} experts",
                                            routing.chosen, experts.count));
  }
  if (experts.count % routing.group_count != 0) {
    return config.Contradiction(
        fmt::format("n_group is {}, which does not divide {} experts into groups",
                    routing.group_count, experts.count));
  }
  if (routing.chosen_groups > routing.group_count) {
    return config.Contradiction(fmt::format("topk_group is {}, but n_group is {}",
                                            routing.chosen_groups, routing.group_count));
  }
  const int64_t group_size = experts.count / routing.group_count;
  if (routing.group_count > 1 && group_size < routing.group_leaders) {
    return config.Contradiction(
        fmt::format("n_group is {}, which leaves {} of {} experts for a group; it needs {}",
                    routing.group_count, group_size, experts.count, routing.group_leaders));
  }
  if (routing.chosen > routing.chosen_groups * group_size) {
    return config.Contradiction(
        fmt::format("num_experts_per_tok is {}, but topk_group = {} groups have {} experts",
                    routing.chosen, routing.chosen_groups, routing.chosen_groups * group_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<MixtureOfExperts> TakeExperts(TensorSource& source, const std::string& layer,
                                             const ExpertsConfig& config, int64_t width,
                                             ActivationInPlace activation) {
  const std::string single = layer + std::string(config.module);
  const std::string stacked = layer + std::string(config.stacked_module);
  const bool is_stacked = config.gate.empty() ||
                          (source.Has(stacked + std::string(config.stacked_gate_up)) &&
                           !source.Has(fmt::format("{}experts.0.{}.weight", single, config.gate)));
  const std::string& module = is_stacked ? stacked : single;
  MixtureOfExperts mixture{.routing = config.routing};
  ESS_ASSIGN_OR_RETURN(mixture.router, TakeLinear(source, module + std::string(config.router),
                                                  config.count, width, /*bias=*/false));
  // Near ties would fall out by rounding in anything narrower.
  mixture.router.weight = mixture.router.weight.to(at::kFloat);
  if (config.corrected) {
    ESS_ASSIGN_OR_RETURN(const at::Tensor correction,
                         source.Take(module + "gate.e_score_correction_bias", {config.count}));
    mixture.correction = correction.to(at::kFloat);
  }
  if (is_stacked) {
    ESS_RETURN_IF_ERROR(TakeStackedExperts(source, module, config, width, activation, mixture));
  } else {
    for (int64_t e = 0; e < config.count; ++e) {
      ESS_ASSIGN_OR_RETURN(GatedFeedForward expert,
                           TakeGatedFeedForward(source, fmt::format("{}experts.{}.", module, e),
                                                {.width = width,
                                                 .inner = config.intermediate_size,
                                                 .activation = activation,
                                                 .gate = config.gate,
                                                 .up = config.up,
                                                 .down = config.down}));
      mixture.experts.push_back(std::move(expert));
    }
  }
  if (config.shared_intermediate_size > 0) {
    ESS_ASSIGN_OR_RETURN(mixture.shared,
                         TakeGatedFeedForward(source, module + std::string(config.shared),
                                              {.width = width,
                                               .inner = config.shared_intermediate_size,
                                               .bias = config.shared_bias,
                                               .activation = activation}));
  }
  if (!config.shared_gate.empty()) {
    ESS_ASSIGN_OR_RETURN(mixture.shared_gate,
                         TakeLinear(source, module + std::string(config.shared_gate),
                                    /*outputs=*/1, width, /*bias=*/false));
  }
  return mixture;
}

}  // namespace ess::models
