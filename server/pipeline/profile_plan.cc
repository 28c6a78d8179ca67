#include "server/pipeline/profile_plan.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess {
namespace {

// How long a prompt is, as messages say it. Gaussian prompts have positions and no tokens.
std::string DescribeLength(const ProfileJob& job, const std::string& prompt_id, int64_t length) {
  return job.gaussian ? fmt::format("gaussian.length: {} positions", length)
                      : fmt::format("prompts: prompt '{}' has {} tokens", prompt_id, length);
}

absl::Status CheckLength(const ProfileJob& job, const std::string& prompt_id, int64_t length,
                         const models::ModelDescription& model, const ProfileLimits& limits) {
  if (length == 0) {
    return absl::InvalidArgumentError(
        fmt::format("prompts: prompt '{}' has no tokens; at least 1 is needed", prompt_id));
  }
  if (length > limits.max_prompt_tokens) {
    return absl::InvalidArgumentError(fmt::format("{}; the limit is {} (max_prompt_tokens)",
                                                  DescribeLength(job, prompt_id, length),
                                                  limits.max_prompt_tokens));
  }
  if (model.max_positions > 0 && length > model.max_positions) {
    return absl::InvalidArgumentError(fmt::format("{}; the model's limit is {} (max_positions)",
                                                  DescribeLength(job, prompt_id, length),
                                                  model.max_positions));
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(const std::vector<int64_t>& ids, const std::string& prompt_id,
                         const models::ModelDescription& model) {
  const auto outside = std::find_if(ids.begin(), ids.end(), [&model](int64_t id) {
    return id < 0 || id >= model.vocabulary_size;
  });
  if (outside != ids.end()) {
    return absl::InvalidArgumentError(fmt::format(
        "prompts: token id {} at index {} of prompt '{}' is outside the vocabulary of {} tokens",
        *outside, outside - ids.begin(), prompt_id, model.vocabulary_size));
  }
  return absl::OkStatus();
}

// The part of an ascending list that is below `count`.
std::vector<int64_t> Below(const std::vector<int64_t>& indices, int64_t count) {
  return {indices.begin(), std::lower_bound(indices.begin(), indices.end(), count)};
}

// Only recurrences have every measure.
absl::Status CheckMeasures(const std::vector<Measure>& measures,
                           const std::vector<PlannedLayer>& layers,
                           const models::ModelDescription& model) {
  const bool causal = std::any_of(measures.begin(), measures.end(), [](const Measure& measure) {
    return measure.kind == Measure::Kind::kCausal;
  });
  for (const PlannedLayer& layer : layers) {
    const models::Mixer& mixer = model.mixers[layer.mixer];
    if (!causal || mixer.state_size.kind == operators::StateSize::Kind::kConstant) continue;
    return absl::InvalidArgumentError(
        fmt::format("measures: causal is for recurrences, and operator '{}' is a {}; select other "
                    "layers or measures",
                    mixer.name, mixer.operator_class));
  }
  return absl::OkStatus();
}

int64_t ResultBytes(const ProfilePlan& plan, const ProfileJob& job) {
  int64_t values = 0;
  for (const Measure& measure : job.measures) {
    for (const auto& positions : plan.positions) {
      for (const PlannedLayer& layer : plan.layers) {
        values +=
            ValueCount(job.reduction, std::ssize(layer.heads), std::ssize(positions), measure);
      }
    }
  }
  return values * ValueBytes(job.options);
}

// The selected mixers, in the order of computation.
absl::StatusOr<std::vector<int64_t>> SelectLayers(const LayerSelection& selection,
                                                  const std::vector<models::Mixer>& mixers) {
  std::set<int64_t> selected;
  const bool everything = selection.indices.ranges.empty() && selection.names.empty();
  std::set<int64_t> layer_indices;
  int64_t layer_count = 0;
  for (const models::Mixer& mixer : mixers) {
    layer_count = std::max(layer_count, mixer.layer_index + 1);
  }
  if (!selection.indices.ranges.empty()) {
    ESS_RETURN_IF_ERROR(CheckExists(selection.indices, layer_count, "layers", "layers"));
    for (int64_t index : SelectedIndices(selection.indices, layer_count)) {
      layer_indices.insert(index);
    }
  }
  std::set<std::string> unknown(selection.names.begin(), selection.names.end());
  for (size_t m = 0; m < mixers.size(); ++m) {
    const bool named = unknown.erase(mixers[m].name) > 0;
    if (everything || named || layer_indices.contains(mixers[m].layer_index)) {
      selected.insert(static_cast<int64_t>(m));
    }
  }
  if (!unknown.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("layers: there is no mixing operator '{}'; the model has {}, '{}' to '{}'",
                    *unknown.begin(), mixers.size(), mixers.front().name, mixers.back().name));
  }
  if (selected.empty()) {
    return absl::InvalidArgumentError("layers: the selected layers have no mixing operator");
  }
  return std::vector<int64_t>(selected.begin(), selected.end());
}

}  // namespace

absl::StatusOr<ProfilePlan> MakeProfilePlan(const ProfileJob& job,
                                            std::vector<std::vector<int64_t>> token_ids,
                                            const models::ModelDescription& model,
                                            const ProfileLimits& limits) {
  ProfilePlan plan;
  int64_t longest = job.longest_of_set;
  for (size_t p = 0; p < token_ids.size(); ++p) {
    const int64_t length = job.gaussian ? job.gaussian->length : std::ssize(token_ids[p]);
    ESS_RETURN_IF_ERROR(CheckLength(job, job.prompts[p].id, length, model, limits));
    ESS_RETURN_IF_ERROR(CheckTokens(token_ids[p], job.prompts[p].id, model));
    plan.lengths.push_back(length);
    longest = std::max(longest, length);
  }
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> mixers, SelectLayers(job.layers, model.mixers));

  int64_t most_heads = 0;
  for (int64_t mixer : mixers) most_heads = std::max(most_heads, model.mixers[mixer].head_count);
  ESS_RETURN_IF_ERROR(CheckExists(job.heads, most_heads, "heads", "heads"));
  ESS_RETURN_IF_ERROR(CheckExists(job.positions, longest, "positions", "positions"));

  const std::vector<int64_t> all_heads = SelectedIndices(job.heads, most_heads);
  for (int64_t mixer : mixers) {
    std::vector<int64_t> heads = Below(all_heads, model.mixers[mixer].head_count);
    if (!heads.empty()) plan.layers.push_back({.mixer = mixer, .heads = std::move(heads)});
  }
  ESS_RETURN_IF_ERROR(CheckMeasures(job.measures, plan.layers, model));
  plan.all_positions = SelectedIndices(job.positions, longest);
  double reference_work = 0;
  for (const int64_t length : plan.lengths) {
    plan.positions.push_back(Below(plan.all_positions, length));
    for (const PlannedLayer& layer : plan.layers) {
      const models::Mixer& mixer = model.mixers[layer.mixer];
      const OperatorShape shape{.class_name = mixer.operator_class,
                                .head_count = mixer.head_count,
                                .length = length,
                                .state_size = mixer.state_size};
      reference_work += ReferenceWork(shape, job.measures, job.options, plan.positions.back()) *
                        static_cast<double>(layer.heads.size());
    }
  }
  plan.token_ids = std::move(token_ids);
  if (job.longest_of_set > 0) return plan;
  if (reference_work > limits.max_reference_work) {
    return absl::InvalidArgumentError(fmt::format(
        "measures: these need {:.2g} floating point operations in singular value decompositions; "
        "the limit is {:.2g} (max_reference_work); ask for other measures, no horizon, shorter "
        "prompts, or fewer layers, heads or positions",
        reference_work, limits.max_reference_work));
  }
  if (const int64_t bytes = ResultBytes(plan, job); bytes > limits.max_result_bytes) {
    return absl::InvalidArgumentError(fmt::format(
        "measures: the answer would have {} bytes; the limit is {} (max_result_bytes); ask for "
        "fewer measures, prompts, layers, heads or positions",
        bytes, limits.max_result_bytes));
  }
  return plan;
}

}  // namespace ess
