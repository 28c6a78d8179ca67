#include "server/models/decoder_model.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <iterator>
#include <utility>

#include "server/base/fault_point.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/models/prompt_work.h"

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

std::vector<DecoderModel::Step> DecoderModel::Steps(const std::vector<Mixer>& mixers,
                                                    int64_t layer_count) {
  std::vector<Step> steps;
  size_t mixer = 0;
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    const bool mixes = mixer < mixers.size() && mixers[mixer].layer_index == layer;
    if (!mixes) steps.push_back({.layer = layer, .mixer = std::nullopt});
    for (; mixer < mixers.size() && mixers[mixer].layer_index == layer; ++mixer) {
      steps.push_back({.layer = layer, .mixer = static_cast<int64_t>(mixer)});
    }
  }
  return steps;
}

std::optional<SerialTorch> DecoderModel::ThreadsFor(const at::Tensor& prompt) const {
  if (!RunsOnOneThread(description_, prompt.size(0))) return std::nullopt;
  return std::optional<SerialTorch>(std::in_place);
}

absl::Status DecoderModel::Run(int64_t prompt_count, Embeddings embeddings, ForwardPass& pass,
                               std::vector<at::Tensor>* logits) const {
  if (logits == nullptr && !pass.last_wanted_mixer().has_value()) return absl::OkStatus();
  std::vector<PromptState> states;
  for (int64_t prompt = 0; prompt < prompt_count; ++prompt) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const at::Tensor embedded = embeddings(prompt);
    const std::optional<SerialTorch> serial = ThreadsFor(embedded);
    states.push_back(decoder_->Begin(embedded));
  }
  for (const Step& step : steps_) {
    pass.BeginMixer(step.mixer);
    for (size_t prompt = 0; prompt < states.size(); ++prompt) {
      ESS_RETURN_IF_ERROR(pass.Yield());
      ESS_RETURN_IF_ERROR(pass.CheckCancellation());
      ESS_FAULT_POINT("forward");
      pass.BeginPrompt(static_cast<int64_t>(prompt));
      const std::optional<SerialTorch> serial = ThreadsFor(states[prompt].hidden);
      ESS_RETURN_IF_ERROR(decoder_->RunLayer(step.layer, states[prompt], pass));
    }
    if (step.mixer.has_value() && pass.EndsAfter(*step.mixer)) break;
  }
  if (logits == nullptr) return absl::OkStatus();
  logits->clear();
  for (const PromptState& state : states) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const std::optional<SerialTorch> serial = ThreadsFor(state.hidden);
    logits->push_back(decoder_->Logits(state.hidden).to(at::kCPU, at::kFloat));
  }
  return absl::OkStatus();
}

}  // namespace ess::models
