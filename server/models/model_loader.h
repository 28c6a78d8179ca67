// A folder in Hugging Face layout -> a model ready to run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::tokenization {
class Tokenizer;
}

namespace ess::models {

class SequenceModel;
struct HostWeights;

struct LoadOptions {
  std::string device = "cpu";  // A c10::Device string.
  bool as_stored = false;      // Keep the checkpoint's dtype; otherwise float32.
  // Draw the weights by the architecture's initialisation; a checkpoint is not looked at.
  std::optional<uint64_t> random_init_seed;
  // Not null: keeps the weights on the host, too. When it has some already, the model is built from
  // them, and no file of weights is read.
  HostWeights* host_weights = nullptr;
};

struct LoadedModel {
  LoadedModel();
  ~LoadedModel();
  LoadedModel(LoadedModel&&);
  LoadedModel& operator=(LoadedModel&&);

  std::unique_ptr<SequenceModel> model;
  // Null when the folder has no tokenizer.json.
  std::unique_ptr<tokenization::Tokenizer> tokenizer;
};

// The file that says what a folder's model is: config.json, or Codestral-Mamba's params.json; empty
// when there is neither.
std::filesystem::path FindConfig(const std::filesystem::path& folder);

// Reads the config, reads or draws the weights, and reads the tokenizer. Messages name files
// relative to the folder, tensors, what was found and what was expected.
// Errors: kFailedPrecondition  unsupported model_type, option or config value.
//         kDataLoss            contents that break the format, contradict the config, or are
//                              missing.
//         kResourceExhausted   not enough memory.
// Cost: reads the weights once; peak memory is the weights plus one tensor.
absl::StatusOr<LoadedModel> LoadModelFolder(const std::filesystem::path& folder,
                                            const LoadOptions& options);

// Upper bound of the bytes that LoadModelFolder takes on its device, from the config and the
// headers of the weight files. Errors as above.
absl::StatusOr<int64_t> MeasureModelFolder(const std::filesystem::path& folder,
                                           const LoadOptions& options);

// `model_type` of the folder's config. Errors as above.
absl::StatusOr<std::string> ReadModelType(const std::filesystem::path& folder);

// The model_types that LoadModelFolder accepts.
std::vector<std::string> SupportedModelTypes();

}  // namespace ess::models
