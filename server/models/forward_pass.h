// One run of a model over a batch, as its layers see it: what is wanted, where operators go, and
// memory that layers share.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/models/layers/attention_scratch.h"
#include "server/operators/operator_sink.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess::models {

// Lives on the stack of one forward pass. Not thread-safe.
class ForwardPass {
 public:
  // Asks the sink once for each of `mixer_count` mixers.
  ForwardPass(int64_t mixer_count, operators::OperatorSink& sink,
              const CancellationToken& cancellation, bool wants_logits);

  // Layers from here on work on this prompt of the batch.
  void BeginPrompt(int64_t prompt) { prompt_ = prompt; }

  // Layers from here on run this mixer; none: their layer does not mix.
  void BeginMixer(std::optional<int64_t> mixer) { mixer_ = mixer; }

  // Whose turn it is. Where a layer mixes once, the first and only one.
  std::optional<int64_t> mixer() const { return mixer_; }

  bool Wants(int64_t mixer) const { return wanted_[static_cast<size_t>(mixer)]; }

  // Whether nothing after this mixer's operators is wanted: its layer may return at once.
  bool EndsAfter(int64_t mixer) const { return !wants_logits_ && mixer == last_wanted_mixer_; }

  // The last mixer whose operators are wanted.
  std::optional<int64_t> last_wanted_mixer() const { return last_wanted_mixer_; }

  // kCancelled or kDeadlineExceeded when the caller no longer waits.
  absl::Status CheckCancellation() const { return cancellation_.Check(); }

  // Lets the sink wait for somebody else. To be called while no operator is in memory.
  // Errors: those of the sink.
  absl::Status Yield();

  // Hands heads [first_head, first_head + op.head_count()) of the current prompt to the sink.
  // Errors: those of the sink.
  absl::Status Accept(int64_t mixer, int64_t first_head, const operators::SequenceOperator& op);

  AttentionScratch& attention_scratch() { return attention_scratch_; }

 private:
  operators::OperatorSink& sink_;
  const CancellationToken& cancellation_;
  const bool wants_logits_;
  std::vector<bool> wanted_;
  std::optional<int64_t> last_wanted_mixer_;
  int64_t prompt_ = 0;
  std::optional<int64_t> mixer_;
  AttentionScratch attention_scratch_;
};

}  // namespace ess::models
