// Checkpoints in the layout of the package mamba_ssm, which has no model_type: their configs in the
// words of transformers. Their tensors have transformers' names but for "embedding.weight".
// Source: mamba_ssm's config_mamba.py and modules; mistral_inference's args.py for Codestral-Mamba.
#pragma once

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/models/config_reader.h"

namespace ess::models {

// Whether this is a config.json of mamba_ssm (state-spaces/mamba-130m and others).
bool IsMambaSsmConfig(const ConfigReader& config);

// A config in the words of transformers, and what stands for each key in the file.
struct TranslatedConfig {
  nlohmann::json values = nlohmann::json::object();
  KeyNames names;
};

// The config of `mamba` or `mamba2` that says the same.
// Errors: those of ConfigReader, with the file's own keys; kFailedPrecondition  attention or
//         feed-forward layers, layer norms, mixers with parts that transformers' have not.
absl::StatusOr<TranslatedConfig> TranslateMambaSsmConfig(const ConfigReader& config);

// The same for Codestral-Mamba's params.json, whose weights are in consolidated.safetensors.
absl::StatusOr<TranslatedConfig> TranslateMistralMambaConfig(const ConfigReader& params);

}  // namespace ess::models
