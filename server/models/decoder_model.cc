#include "server/models/decoder_model.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::models {

absl::Status DecoderModel::Forward(PromptBatch prompts, operators::OperatorSink& sink,
                                   const CancellationToken& cancellation,
                                   std::vector<at::Tensor>* logits) const {
  return CatchTorch("forward pass", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    ForwardPass pass(static_cast<int64_t>(description_.mixers.size()), sink, cancellation,
                     logits != nullptr);
    return Run(prompts, pass, logits);
  });
}

absl::Status DecoderModel::Run(PromptBatch prompts, ForwardPass& pass,
                               std::vector<at::Tensor>* logits) const {
  int64_t layers_to_run = layer_count_;
  if (logits == nullptr) {
    if (!pass.last_wanted_mixer().has_value()) return absl::OkStatus();
    const Mixer& last = description_.mixers[static_cast<size_t>(*pass.last_wanted_mixer())];
    layers_to_run = last.layer_index + 1;
  }

  std::vector<PromptState> states;
  for (const std::vector<int64_t>& token_ids : prompts) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    states.push_back(decoder_->Embed(at::tensor(token_ids, at::kLong).to(description_.device)));
  }
  for (int64_t layer = 0; layer < layers_to_run; ++layer) {
    for (size_t prompt = 0; prompt < states.size(); ++prompt) {
      ESS_RETURN_IF_ERROR(pass.CheckCancellation());
      pass.BeginPrompt(static_cast<int64_t>(prompt));
      ESS_RETURN_IF_ERROR(decoder_->RunLayer(layer, states[prompt], pass));
    }
  }
  if (logits == nullptr) return absl::OkStatus();
  logits->clear();
  for (const PromptState& state : states) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    logits->push_back(decoder_->Logits(state.hidden).to(at::kCPU, at::kFloat));
  }
  return absl::OkStatus();
}

}  // namespace ess::models
