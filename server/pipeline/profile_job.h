// A validated request for a profile, and what its answer is made of.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"
#include "server/models/gaussian_prompts.h"
#include "server/models/sequence_model.h"
#include "server/pipeline/layer_record.h"
#include "server/pipeline/reduction.h"
#include "server/pipeline/selection.h"

namespace ess {

struct PromptInput {
  std::string id;                                           // Unique in the job.
  std::variant<std::string, std::vector<int64_t>> content;  // Text or token ids; not empty.
};

struct LayerSelection {
  IndexSelection indices;
  std::vector<std::string> names;
};

struct ProfileJob {
  std::string request_id;
  std::string model;
  std::vector<PromptInput> prompts;  // At least one.
  // What the prompts hold instead of their contents, which are then empty; one for each.
  std::optional<models::GaussianPrompts> gaussian;
  std::vector<Measure> measures;  // At least one, valid, none twice.
  EssOptions options;
  Reduction reduction = Reduction::kNone;
  LayerSelection layers;
  IndexSelection heads;
  IndexSelection positions;
  bool add_special_tokens = true;
  // Whether the receiver wants the tokens' texts, which cost as much as tokenizing.
  bool token_texts = true;
  // Of a larger set of prompts, of which these are a part, the tokens of the longest; 0: these are
  // the set. What was checked of the set is not checked of its part: that the selected positions
  // exist somewhere, and the limits of a whole answer.
  int64_t longest_of_set = 0;
};

// Tokens of all prompts, known before there is a tokenizer: a text counts one for every 3 bytes.
int64_t ApproximateTokens(const ProfileJob& job);

// Tokens that a prompt of the job has at most: a text has hardly more than it has bytes.
int64_t MostTokens(const ProfileJob& job, const PromptInput& prompt);

// One selected mixing operator.
struct PlannedLayer {
  int64_t mixer = 0;           // Index into ModelDescription::mixers.
  std::vector<int64_t> heads;  // Selected, ascending.
};

// What will be computed, known before the forward pass.
struct ProfilePlan {
  std::vector<std::vector<int64_t>> token_ids;  // [prompts][L]; [prompts][0] of Gaussian ones.
  std::vector<int64_t> lengths;                 // [prompts]
  std::vector<PlannedLayer> layers;             // In the order of computation.
  std::vector<std::vector<int64_t>> positions;  // [prompts][selected]
  std::vector<int64_t> all_positions;           // Selected, of the longest prompt.

  // Of all prompts together: tokens, or the embeddings of Gaussian ones.
  int64_t PositionCount() const {
    return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  }
};

// ESS of some heads of one layer and prompt; ordinals refer to the plan. Once reduced, the values
// have the shape of ValueShape; with Reduction::kHeads a piece holds all heads.
struct EssPiece {
  int64_t layer = 0;
  int64_t prompt = 0;
  int64_t first_head = 0;  // Ordinal among the layer's selected heads.
  int64_t head_count = 0;
  const OperatorEss& ess;
};

struct ProfileSummary {
  std::vector<LayerRecord> layers;  // Aligned with the plan.
  std::map<std::string, double> stage_seconds;
  int64_t peak_host_bytes = 0;
};

}  // namespace ess
