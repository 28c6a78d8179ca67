#include "server/models/initial_weights.h"

#include <utility>

#include "server/base/status_macros.h"

namespace ess::models {
namespace {

// None where the file says null.
absl::StatusOr<std::optional<int64_t>> ReadPadding(const ConfigReader& config,
                                                   std::optional<int64_t> default_value) {
  constexpr std::string_view kKey = "pad_token_id";
  if (config.IsNull(kKey)) return std::nullopt;
  if (!config.Has(kKey)) return default_value;
  ESS_ASSIGN_OR_RETURN(const double padding,
                       config.Number(kKey, std::nullopt, -kMaxConfigSize, kMaxConfigSize));
  return static_cast<int64_t>(padding);
}

}  // namespace

absl::StatusOr<InitialWeights> ReadInitialWeights(const ConfigReader& config,
                                                  const InitialDefaults& defaults,
                                                  std::vector<InitialRule> rules) {
  constexpr double kMaxRange = 1e3;
  InitialWeights weights{.rules = std::move(rules), .norm_weight = defaults.norm_weight};
  ESS_ASSIGN_OR_RETURN(
      weights.standard_deviation,
      config.Number("initializer_range", defaults.standard_deviation, 0, kMaxRange));
  ESS_ASSIGN_OR_RETURN(const bool tied, config.Bool("tie_word_embeddings", defaults.tied_head));
  if (tied) weights.absent.insert(defaults.head + ".weight");
  if (defaults.padded_embedding.empty()) return weights;
  ESS_ASSIGN_OR_RETURN(const std::optional<int64_t> padding, ReadPadding(config, defaults.padding));
  if (padding) {
    weights.rules.push_back(
        {.names = defaults.padded_embedding + ".weight",
         .distribution = NormalButOneRow(weights.standard_deviation, *padding)});
  }
  return weights;
}

}  // namespace ess::models
