#include "server/models/layers/attention_mixer.h"

#include <utility>

#include "server/base/status_macros.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

class AttentionMixer final : public SequenceMixer {
 public:
  AttentionMixer(const AttentionMixerConfig& config, std::unique_ptr<AttentionLayer> heads,
                 Linear output)
      : config_(config.heads),
        rotary_(config.rotary),
        heads_(std::move(heads)),
        output_(std::move(output)) {}

  Mixer Describe() const override {
    return AttentionMixers({config_.window}, config_.head_count, config_.head_dim).front();
  }

  absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                 ForwardPass& pass) const override {
    ESS_ASSIGN_OR_RETURN(
        const at::Tensor mixed,
        rotary_ ? heads_->Attend(x, MakeRotaryTable(*rotary_, x.size(0), x.device()), mixer, pass)
                : heads_->Attend(x, rotary, mixer, pass));
    return mixed.defined() ? output_(mixed) : mixed;
  }

 private:
  const GroupedQueryConfig config_;
  const std::optional<RotaryScaling> rotary_;
  const std::unique_ptr<AttentionLayer> heads_;
  const Linear output_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeAttentionMixer(
    TensorSource& tensors, const std::string& module, const AttentionMixerConfig& config) {
  const GroupedQueryConfig& heads = config.heads;
  ESS_ASSIGN_OR_RETURN(auto attention, TakeGroupedQueryAttention(tensors, module, heads));
  ESS_ASSIGN_OR_RETURN(Linear output,
                       TakeLinear(tensors, module + std::string(config.output), heads.hidden_size,
                                  heads.head_count * heads.head_dim, config.output_bias));
  return std::make_unique<AttentionMixer>(config, std::move(attention), std::move(output));
}

}  // namespace ess::models
