#include "server/models/decoder_model.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <iterator>

#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::models {

absl::Status DecoderModel::Forward(PromptBatch prompts, operators::OperatorSink& sink,
                                   const CancellationToken& cancellation,
                                   std::vector<at::Tensor>* logits) const {
  const auto embeddings = [&](int64_t prompt) {
    const at::Tensor ids = at::tensor(prompts[static_cast<size_t>(prompt)], at::kLong);
    return at::embedding(decoder_->embedding(), ids.to(description_.device));
  };
  return CatchAndRun(std::ssize(prompts), embeddings, sink, cancellation, logits);
}

absl::Status DecoderModel::ForwardGaussian(const GaussianPrompts& prompts,
                                           operators::OperatorSink& sink,
                                           const CancellationToken& cancellation,
                                           std::vector<at::Tensor>* logits) const {
  const auto embeddings = [&](int64_t prompt) {
    return GaussianEmbeddings(prompts, prompt, description_.hidden_size)
        .to(decoder_->embedding().options());
  };
  return CatchAndRun(prompts.count, embeddings, sink, cancellation, logits);
}

absl::Status DecoderModel::CatchAndRun(int64_t prompt_count, Embeddings embeddings,
                                       operators::OperatorSink& sink,
                                       const CancellationToken& cancellation,
                                       std::vector<at::Tensor>* logits) const {
  return CatchTorch("forward pass", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    ForwardPass pass(static_cast<int64_t>(description_.mixers.size()), sink, cancellation,
                     logits != nullptr);
    return Run(prompt_count, embeddings, pass, logits);
  });
}

absl::Status DecoderModel::Run(int64_t prompt_count, Embeddings embeddings, ForwardPass& pass,
                               std::vector<at::Tensor>* logits) const {
  int64_t layers_to_run = layer_count_;
  if (logits == nullptr) {
    if (!pass.last_wanted_mixer().has_value()) return absl::OkStatus();
    const Mixer& last = description_.mixers[static_cast<size_t>(*pass.last_wanted_mixer())];
    layers_to_run = last.layer_index + 1;
  }

  std::vector<PromptState> states;
  for (int64_t prompt = 0; prompt < prompt_count; ++prompt) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    states.push_back(decoder_->Begin(embeddings(prompt)));
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
