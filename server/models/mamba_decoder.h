// The stack of Mamba and Mamba-2: an RMS norm and a mixer in each layer, no feed-forward.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/status_macros.h"
#include "server/models/architecture.h"
#include "server/models/config_reader.h"
#include "server/models/initial_weights.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// What both read from their configs.
struct MambaSizes {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // E: channels of the mixer.
  int64_t state_size = 0;         // N
  int64_t layer_count = 0;
  int64_t convolution_taps = 0;
  double norm_epsilon = 0;
  bool projection_bias = false;
  bool convolution_bias = true;
};
struct MambaDefaults {
  int64_t vocabulary_size, hidden_size, state_size, layer_count;
};
// Errors: those of ConfigReader.
absl::StatusOr<MambaSizes> ReadMambaSizes(const ConfigReader& config,
                                          const MambaDefaults& defaults);

// What the mixers of both start from, all but the projections of the time steps. `tied_head`,
// `default_layers`: of configs that are silent. Errors: those of ConfigReader.
absl::StatusOr<InitialWeights> ReadMambaInitialWeights(const ConfigReader& config, bool tied_head,
                                                       int64_t default_layers);

// The bias before the softplus of the time steps, by time_step_min, time_step_max and
// time_step_floor. Errors: those of ConfigReader.
absl::StatusOr<Distribution> ReadInitialTimeSteps(const ConfigReader& config);

// Takes the mixer of the layer whose tensors start with this prefix ("layers.3.mixer.").
using TakeMambaMixer =
    absl::FunctionRef<absl::StatusOr<std::unique_ptr<SequenceMixer>>(const std::string& prefix)>;

// Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceModel>> MakeMambaDecoder(const std::string& model_type,
                                                                const MambaSizes& sizes,
                                                                TensorSource& tensors,
                                                                const std::string& device,
                                                                TakeMambaMixer take_mixer);

// The architecture whose configs `Read` reads and whose mixers `TakeMixer` takes:
//   absl::StatusOr<Config> Read(const ConfigReader&), with MambaSizes Config::sizes
//   absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeMixer(
//       TensorSource&, const std::string& prefix, const Scan&), with Scan Config::scan
// `architecture` says the rest. Checkpoints may carry the prefix "backbone.".
template <auto Read, auto TakeMixer>
Architecture MambaStackArchitecture(Architecture architecture) {
  architecture.base_prefixes = {"backbone."};
  architecture.create =
      [](const ConfigReader& config, TensorSource& tensors,
         const std::string& device) -> absl::StatusOr<std::unique_ptr<SequenceModel>> {
    ESS_ASSIGN_OR_RETURN(const std::string type, config.String("model_type", std::nullopt));
    ESS_ASSIGN_OR_RETURN(const auto mamba, Read(config));
    return MakeMambaDecoder(type, mamba.sizes, tensors, device, [&](const std::string& prefix) {
      return TakeMixer(tensors, prefix, mamba.scan);
    });
  };
  return architecture;
}

}  // namespace ess::models
