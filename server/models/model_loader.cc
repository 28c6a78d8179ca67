#include "server/models/model_loader.h"

#include <ATen/core/Tensor.h>

#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "server/base/json_file.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/checkpoint/weight_map.h"
#include "server/models/architectures.h"
#include "server/models/mamba_ssm_config.h"
#include "server/models/random_weights.h"
#include "server/models/sequence_model.h"
#include "server/tokenization/tokenizer.h"

namespace ess::models {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kMistralConfigFile[] = "params.json";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// The tensors of a checkpoint folder.
class CheckpointTensors final : public TensorSource {
 public:
  explicit CheckpointTensors(checkpoint::WeightMap& weights) : weights_(weights) {}

  bool Has(std::string_view name) const override { return weights_.Has(name); }
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override {
    return weights_.Take(name, shape);
  }
  void IgnorePrefix(std::string_view prefix) override { weights_.IgnorePrefix(prefix); }
  TensorTotals Totals() const override {
    return {
        .bytes = weights_.bytes(), .parameters = weights_.parameters(), .dtype = weights_.dtype()};
  }

 private:
  checkpoint::WeightMap& weights_;
};

bool Exists(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

// In the layout of mistral_inference.
bool IsMistralFolder(const std::filesystem::path& folder) {
  return !Exists(folder / kConfigFile) && Exists(folder / kMistralConfigFile);
}

absl::StatusOr<nlohmann::json> ReadObject(const std::filesystem::path& folder,
                                          const std::string& file) {
  ESS_ASSIGN_OR_RETURN(nlohmann::json object, ReadJsonFile(folder / file, file, kMaxConfigBytes));
  if (object.is_object()) return object;
  return absl::DataLossError(fmt::format("{}: the file is not an object", file));
}

// What a folder's config says, in transformers' words, whoever wrote it.
struct FolderConfig {
  TranslatedConfig config;
  std::string file;

  ConfigReader Reader() const {
    return ConfigReader(config.values, /*path=*/"", file, &config.names);
  }
};

absl::StatusOr<FolderConfig> ReadConfig(const std::filesystem::path& folder) {
  const bool is_mistral = IsMistralFolder(folder);
  FolderConfig read{.config = {}, .file = is_mistral ? kMistralConfigFile : kConfigFile};
  ESS_ASSIGN_OR_RETURN(read.config.values, ReadObject(folder, read.file));
  const nlohmann::json written = read.config.values;
  const ConfigReader reader(written, /*path=*/"", read.file);
  if (is_mistral) {
    ESS_ASSIGN_OR_RETURN(read.config, TranslateMistralMambaConfig(reader));
  } else if (IsMambaSsmConfig(reader)) {
    ESS_ASSIGN_OR_RETURN(read.config, TranslateMambaSsmConfig(reader));
  }
  return read;
}

absl::StatusOr<const Architecture*> ChooseArchitecture(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const std::string model_type,
                       config.Choice("model_type", std::nullopt, SupportedModelTypes()));
  return FindArchitecture(model_type);
}

absl::StatusOr<std::unique_ptr<SequenceModel>> LoadModel(const std::filesystem::path& folder,
                                                         const LoadOptions& options) {
  ESS_ASSIGN_OR_RETURN(const FolderConfig read, ReadConfig(folder));
  const ConfigReader config = read.Reader();
  ESS_ASSIGN_OR_RETURN(const Architecture* const architecture, ChooseArchitecture(config));
  if (options.random_init_seed) {
    ESS_ASSIGN_OR_RETURN(InitialWeights initial, architecture->initial_weights(config));
    RandomWeights tensors(std::move(initial), *options.random_init_seed, options.device);
    return architecture->create(config, tensors, options.device);
  }
  if (config.Has("quantization_config")) {
    return config.Unsupported("quantization_config", "none");
  }
  ESS_ASSIGN_OR_RETURN(checkpoint::WeightMap weights,
                       checkpoint::WeightMap::Open(folder, options.device, options.as_stored));
  if (IsMistralFolder(folder)) weights.StripPrefix({"model."});
  weights.StripPrefix(architecture->base_prefixes);
  for (const std::string& suffix : architecture->ignored_suffixes) weights.IgnoreSuffix(suffix);
  CheckpointTensors tensors(weights);
  ESS_ASSIGN_OR_RETURN(auto model, architecture->create(config, tensors, options.device));
  ESS_RETURN_IF_ERROR(weights.CheckAllTaken());
  return model;
}

}  // namespace

std::filesystem::path FindConfig(const std::filesystem::path& folder) {
  for (const char* const file : {kConfigFile, kMistralConfigFile}) {
    std::error_code error;
    if (std::filesystem::is_regular_file(folder / file, error)) return folder / file;
  }
  return {};
}

LoadedModel::LoadedModel() = default;
LoadedModel::~LoadedModel() = default;
LoadedModel::LoadedModel(LoadedModel&&) = default;
LoadedModel& LoadedModel::operator=(LoadedModel&&) = default;

absl::StatusOr<LoadedModel> LoadModelFolder(const std::filesystem::path& folder,
                                            const LoadOptions& options) {
  LoadedModel loaded;
  ESS_RETURN_IF_ERROR(CatchTorch("loading the model", [&]() -> absl::Status {
    ESS_ASSIGN_OR_RETURN(loaded.model, LoadModel(folder, options));
    return absl::OkStatus();
  }));
  if (Exists(folder / "tokenizer.json")) {
    ESS_ASSIGN_OR_RETURN(loaded.tokenizer, tokenization::Tokenizer::Load(folder));
  }
  return loaded;
}

absl::StatusOr<std::string> ReadModelType(const std::filesystem::path& folder) {
  ESS_ASSIGN_OR_RETURN(const FolderConfig read, ReadConfig(folder));
  return read.Reader().String("model_type", std::nullopt);
}

std::vector<std::string> SupportedModelTypes() {
  std::vector<std::string> model_types;
  for (const Architecture& architecture : Architectures()) {
    model_types.push_back(architecture.model_type);
  }
  return model_types;
}

}  // namespace ess::models
