#include "server/models/forward_pass.h"

namespace ess::models {

ForwardPass::ForwardPass(int64_t mixer_count, operators::OperatorSink& sink,
                         const CancellationToken& cancellation, bool wants_logits)
    : sink_(sink), cancellation_(cancellation), wants_logits_(wants_logits) {
  for (int64_t mixer = 0; mixer < mixer_count; ++mixer) {
    wanted_.push_back(sink_.Wants(mixer));
    if (wanted_.back()) last_wanted_mixer_ = mixer;
  }
}

absl::Status ForwardPass::Yield() {
  return sink_.Yield([this] { attention_scratch_ = AttentionScratch(); });
}

absl::Status ForwardPass::Accept(int64_t mixer, int64_t first_head,
                                 const operators::SequenceOperator& op) {
  return sink_.Accept({.mixer = mixer, .prompt = prompt_, .first_head = first_head}, op);
}

}  // namespace ess::models
