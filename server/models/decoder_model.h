// The loop over layers and prompts that every architecture shares.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/base/serial_torch.h"
#include "server/models/decoder.h"
#include "server/models/sequence_model.h"

namespace ess::models {

// Immutable, thread-safe.
class DecoderModel final : public SequenceModel {
 public:
  // Mixers of `description` are in ascending order of layer_index.
  DecoderModel(ModelDescription description, int64_t layer_count,
               std::unique_ptr<const Decoder> decoder)
      : description_(std::move(description)),
        steps_(Steps(description_.mixers, layer_count)),
        decoder_(std::move(decoder)) {}

  const ModelDescription& description() const override { return description_; }

  absl::Status Forward(PromptBatch prompts, operators::OperatorSink& sink,
                       const CancellationToken& cancellation,
                       std::vector<at::Tensor>* logits) const override;

  absl::Status ForwardGaussian(const GaussianPrompts& prompts, operators::OperatorSink& sink,
                               const CancellationToken& cancellation,
                               std::vector<at::Tensor>* logits) const override;

 private:
  // The embeddings of a prompt, by its index.
  using Embeddings = absl::FunctionRef<at::Tensor(int64_t prompt)>;

  absl::Status CatchAndRun(int64_t prompt_count, Embeddings embeddings,
                           operators::OperatorSink& sink, const CancellationToken& cancellation,
                           std::vector<at::Tensor>* logits) const;
  absl::Status Run(int64_t prompt_count, Embeddings embeddings, ForwardPass& pass,
                   std::vector<at::Tensor>* logits) const;
  // Keeps LibTorch to one thread while it lives, for a prompt [L, D] that is not worth more.
  std::optional<SerialTorch> ThreadsFor(const at::Tensor& prompt) const;

  // One run over all prompts: a layer, or one mixer of a layer that mixes more than once.
  struct Step {
    int64_t layer;
    std::optional<int64_t> mixer;
  };
  static std::vector<Step> Steps(const std::vector<Mixer>& mixers, int64_t layer_count);

  const ModelDescription description_;
  const std::vector<Step> steps_;
  const std::unique_ptr<const Decoder> decoder_;
};

}  // namespace ess::models
