// An architecture: how a config and tensors become a model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/models/config_reader.h"
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

  // A config of at least two layers and two heads whose model takes milliseconds, for tests that
  // walk the table.
  nlohmann::json (*tiny_config)();
};

}  // namespace ess::models
