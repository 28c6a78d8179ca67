// The mixers of the testbed: SA, LA, WLA, GLA, S6 and GLA-S6.
// Source: Parnichkun et al. 2025 (arXiv:2504.19561), appendix D.2; as its equations have it, b_t
// and c_t are functions of x_t and the state is read after the step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/forward_pass.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

enum class TestbedMixerKind { kSA, kLA, kWLA, kGLA, kS6, kGLAS6 };

// As config.json spells them, in the order of the kinds: "SA", ..., "GLA-S6".
std::vector<std::string> TestbedMixerNames();

// What the mixers read from config.json.
struct TestbedMixerConfig {
  int64_t hidden_size = 0;              // D
  int64_t head_count = 0;               // H
  int64_t head_dim = 0;                 // d = D / H
  std::optional<int64_t> state_size;    // N of all recurrences, where the config says so.
  double attention_scale = 0;           // SA
  double recurrence_scale = 1;          // All others: multiplies T.
  double rotary_theta = 0;              // SA, LA
  int64_t gate_rank = 0;                // GLA, GLA-S6
  double beta = 0;                      // WLA, GLA
  double alpha = 0;                     // GLA-S6
  std::vector<TestbedMixerKind> kinds;  // By layer.

  // N of a recurrence, the width of a query of SA.
  int64_t StatesOf(TestbedMixerKind kind) const;
};

// Errors: those of ConfigReader; kDataLoss  heads that do not share out the hidden size, an odd
//         number of dimensions that rotate.
absl::StatusOr<TestbedMixerConfig> ReadTestbedMixers(const ConfigReader& config);

// Immutable.
class TestbedMixer {
 public:
  virtual ~TestbedMixer() = default;

  // T(x) applied to values, x and values [L, D] => [L, D], channels in order; undefined when the
  // pass ends after this mixer. Hands its operators to `pass`.
  // Errors: those of the sink; kCancelled, kDeadlineExceeded.
  virtual absl::StatusOr<at::Tensor> Mix(const at::Tensor& x, const at::Tensor& values,
                                         int64_t mixer, ForwardPass& pass) const = 0;
};

// Takes the features' tensors, whose names start with `prefix` ("layers.3.mixer."). Errors: those
// of TensorSource.
absl::StatusOr<std::unique_ptr<TestbedMixer>> TakeTestbedMixer(TensorSource& tensors,
                                                               const TestbedMixerConfig& config,
                                                               TestbedMixerKind kind,
                                                               const std::string& prefix);

// How a model describes the mixers of its layers.
std::vector<Mixer> DescribeTestbedMixers(const TestbedMixerConfig& config);

}  // namespace ess::models
