// What a job computes, once its prompts are tokenized: all that the shape of its result depends on.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/operators/state_size.h"

namespace ess::jobs {

struct JobMeasure {
  std::string name;   // Canonical.
  int64_t count = 0;  // Of the last axis of singular_values, else 0: there is none.
};

struct JobLayer {
  std::string name;
  int64_t layer_index = 0;
  std::string operator_class;
  std::vector<int64_t> heads;     // Selected, the model's indices.
  std::vector<int64_t> channels;  // Of each.
  operators::StateSize state_size;
};

struct JobPlan {
  std::map<std::string, std::string> model;  // As the manifest has it.
  std::string server_version;
  std::vector<JobMeasure> measures;
  std::optional<int64_t> horizon;
  bool certify = false;
  std::string reduce;  // "heads", "positions" or "".
  std::vector<JobLayer> layers;
  std::vector<int64_t> positions;  // Selected, of the longest prompt.
  std::vector<int64_t> lengths;    // Tokens of each prompt.
  int64_t prompts_json_bytes = 0;  // Of JobFiles::prompts_json.
  // What a prompt of a length costs, in seconds by the estimate; by WorkLength.
  std::map<int64_t, double> work;

  int64_t prompts() const { return std::ssize(lengths); }
};

// Prompts that run together.
struct PromptGroup {
  int64_t first = 0;
  int64_t count = 0;
};

// Lengths that cost nearly the same have one of these: at most 16 to an octave.
int64_t WorkLength(int64_t length);

// Runs of prompts, in order: each with at most 256 prompts and, unless it is one prompt, at most
// 16384 tokens. The work that a kill may cost, and how long a model is held.
std::vector<PromptGroup> MakeGroups(const std::vector<int64_t>& lengths);

// Without the lengths, which have a file of their own.
std::string WritePlan(const JobPlan& plan);
// Errors: kDataLoss  not what WritePlan wrote.
absl::StatusOr<JobPlan> ReadPlan(const std::string& text);

}  // namespace ess::jobs
