// How an architecture's weights start: which tensor is drawn from which distribution.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/distributions.h"

namespace ess::models {

// For tensors whose name, without the base prefix, matches a pattern in which '*' stands for any
// characters: "layers.*.mixer.A_log", "*.D".
struct InitialRule {
  std::string names;
  Distribution distribution;
};

// A tensor starts by the first rule that matches its name. Without one, "NAME.bias" is 0,
// "NAME.weight" of one axis is a norm's, and any other "NAME.weight" is normal around 0. Tensors of
// other names need a rule.
struct InitialWeights {
  std::vector<InitialRule> rules;
  double standard_deviation = 0.02;
  double norm_weight = 1;
  // Names that a model does not start with, though a checkpoint may have them: those of a tied
  // output head.
  std::set<std::string, std::less<>> absent;
};

// What differs by architecture where the config is silent.
struct InitialDefaults {
  double standard_deviation = 0.02;  // initializer_range
  bool tied_head = false;            // tie_word_embeddings
  std::string head = "lm_head";
  double norm_weight = 1;
  // The embedding whose row `pad_token_id` is 0; empty where the public class has no such row.
  std::string padded_embedding;
  std::optional<int64_t> padding;  // pad_token_id
};

// The scheme of transformers' PreTrainedModel: reads initializer_range, tie_word_embeddings and
// pad_token_id. `rules` go before the defaults'.
// Errors: those of ConfigReader.
absl::StatusOr<InitialWeights> ReadInitialWeights(const ConfigReader& config,
                                                  const InitialDefaults& defaults,
                                                  std::vector<InitialRule> rules = {});

}  // namespace ess::models
