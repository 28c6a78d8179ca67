// A model: token ids in, operators of its mixing layers out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/models/gaussian_prompts.h"
#include "server/operators/operator_sink.h"
#include "server/operators/state_size.h"

namespace ess::models {

// One mixing operator of a model.
struct Mixer {
  std::string name;  // "007", or "007.attention" where a layer mixes twice.
  int64_t layer_index = 0;
  std::string operator_class;  // "DenseOperator", "DiagonalRecurrence", ...
  int64_t head_count = 0;      // Independent operators: heads or channels.
  // Channels that share each head's operator: one number for all heads, or one per head.
  std::vector<int64_t> channels;
  operators::StateSize state_size;
};

struct ModelDescription {
  std::string architecture;  // model_type
  std::string device;        // "cpu", "cuda:0"
  std::string dtype;         // of the resident weights: "float32", "bfloat16", "float16"
  int64_t weight_bytes = 0;
  int64_t parameters = 0;
  int64_t vocabulary_size = 0;
  int64_t max_positions = 0;  // 0: no limit.
  int64_t hidden_size = 0;
  std::vector<Mixer> mixers;  // In the order of computation.
};

// A batch of prompts of different lengths, each at least one token.
using PromptBatch = std::span<const std::vector<int64_t>>;

// The model's name for a mixing operator: "007", or "007.KIND" where a layer mixes more than once.
std::string MixerName(int64_t layer_index);
std::string MixerName(int64_t layer_index, std::string_view kind);

// Immutable after loading: several threads may run it at once.
class SequenceModel {
 public:
  virtual ~SequenceModel() = default;

  virtual const ModelDescription& description() const = 0;

  // Runs the prompts through the model, layer by layer for all prompts, and hands the operators
  // that the sink wants to it. A prompt gives the same bits alone or in any batch: no arithmetic
  // sees more than one prompt.
  //
  // `logits`, when not null, receives one float32 [L, V] per prompt on the CPU; otherwise the pass
  // ends after the last wanted mixer.
  //
  // REQUIRES: every id in [0, vocabulary_size); lengths in [1, max_positions].
  // Errors: those of the sink; kCancelled and kDeadlineExceeded from `cancellation`, looked at
  //         between layers, prompts and head groups; kResourceExhausted and kInternal.
  virtual absl::Status Forward(PromptBatch prompts, operators::OperatorSink& sink,
                               const CancellationToken& cancellation,
                               std::vector<at::Tensor>* logits) const = 0;

  // The same with embeddings that are drawn, in place of those of tokens.
  virtual absl::Status ForwardGaussian(const GaussianPrompts& prompts,
                                       operators::OperatorSink& sink,
                                       const CancellationToken& cancellation,
                                       std::vector<at::Tensor>* logits) const = 0;
};

}  // namespace ess::models
