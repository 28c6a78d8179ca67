// Where a model hands over the operators of its layers while it runs.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ess::operators {

class SequenceOperator;

// Which operator: mixing operator `mixer` (index into ModelDescription::mixers) of prompt `prompt`
// (index into the batch), heads from `first_head` on.
struct OperatorKey {
  int64_t mixer = 0;
  int64_t prompt = 0;
  int64_t first_head = 0;
};

// Called from the thread that runs the model: mixers in ascending order, prompts within a mixer,
// head groups within a prompt. The operator lives until Accept returns, so that a model's peak
// memory is one group of heads.
class OperatorSink {
 public:
  virtual ~OperatorSink() = default;

  // Whether operators of this mixer should be captured. A model may stop before the first layer
  // from which on nothing is wanted.
  virtual bool Wants(int64_t mixer) const = 0;

  // A status that is not OK stops the model's forward pass, which returns it.
  virtual absl::Status Accept(const OperatorKey& key, const SequenceOperator& op) = 0;

  // Called before each layer of each prompt, while no operator is in memory: the place to wait for
  // somebody else. `release` frees what the model can make again; for before a long wait.
  virtual absl::Status Yield(absl::FunctionRef<void()> release) { return absl::OkStatus(); }
};

}  // namespace ess::operators
