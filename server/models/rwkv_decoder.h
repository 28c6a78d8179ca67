// What RWKV-6 and RWKV-7 share in flash-linear-attention's layout: pre-norm blocks of a mixer and a
// feed-forward with token shifts, layer norms throughout, one of them on the embeddings.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/decoder.h"
#include "server/models/distributions.h"
#include "server/models/forward_pass.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/token_shift.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct RwkvSizes {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // I
  int64_t layer_count = 0;
  double norm_epsilon = 0;
  bool norm_bias = true;
  bool norm_first = true;                  // One more norm, of the embeddings.
  ActivationInPlace activation = nullptr;  // Of the feed-forward.
};
// `default_ratio`: intermediate_size over hidden_size, where the config names neither.
// Errors: those of ConfigReader.
absl::StatusOr<RwkvSizes> ReadRwkvSizes(const ConfigReader& config, double default_ratio);

// value(activation(key x)), times sigmoid(receptance x) where the model has one.
struct RwkvFeedForward {
  ShiftedLinear key;         // [I, D]
  Linear value;              // [D, I]
  ShiftedLinear receptance;  // [D, D]; without a weight: none.
};

// One layer's mixer. Immutable.
class RwkvMixer {
 public:
  virtual ~RwkvMixer() = default;

  // All but its name and layer.
  virtual Mixer Describe() const = 0;

  // x [L, D] => [L, D]; undefined when the pass ends after this mixer. May read and write what
  // `state` holds beside the hidden states.
  // Errors: those of the sink; kCancelled, kDeadlineExceeded.
  virtual absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, PromptState& state, int64_t mixer,
                                         ForwardPass& pass) const = 0;
};

// Take the parts of a layer whose tensors start with this prefix ("layers.3.attn.",
// "layers.3.ffn.").
using TakeRwkvMixer = absl::FunctionRef<absl::StatusOr<std::unique_ptr<RwkvMixer>>(
    const std::string& prefix, int64_t layer_index)>;
using TakeRwkvFeedForward =
    absl::FunctionRef<absl::StatusOr<RwkvFeedForward>(const std::string& prefix)>;

// How the second projection of a low-rank pair starts; the first starts at 0.
Distribution LowRankStart();

// Takes every tensor. Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeRwkvDecoder(
    const std::string& model_type, const RwkvSizes& sizes, TensorSource& tensors,
    const std::string& device, TakeRwkvMixer take_mixer, TakeRwkvFeedForward take_feed_forward);

}  // namespace ess::models
