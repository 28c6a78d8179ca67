// An architecture: how a config and tensors become a model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/models/config_reader.h"
#include "server/models/initial_weights.h"
#include "server/models/sequence_model.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct Architecture {
  // The key `model_type` of config.json.
  std::string model_type;

  // Prefixes of tensor names that checkpoints of this architecture carry or lack.
  std::vector<std::string> base_prefixes;

  // Tensors that old checkpoints carry and the model does not use: names end like this.
  std::vector<std::string> ignored_suffixes;

  // Reads the hyper-parameters, takes every tensor, and builds the model on `device`.
  // Errors: those of ConfigReader and TensorSource.
  absl::StatusOr<std::unique_ptr<SequenceModel>> (*create)(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device);

  // How the weights start, for a model that is served without a checkpoint. Without it: the common
  // scheme alone, with an output head of its own.
  // Errors: those of ConfigReader.
  absl::StatusOr<InitialWeights> (*initial_weights)(const ConfigReader& config) =
      [](const ConfigReader& reader) { return ReadInitialWeights(reader, {}); };

  // A config of at least two layers and two heads whose model takes milliseconds, for tests that
  // walk the table.
  nlohmann::json (*tiny_config)();
};

}  // namespace ess::models
