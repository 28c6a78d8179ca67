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
#include "server/models/host_weights.h"
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

// A config whose architecture is known.
struct ConfiguredArchitecture {
  FolderConfig config;
  const Architecture* architecture;
};

absl::StatusOr<ConfiguredArchitecture> ReadArchitecture(const std::filesystem::path& folder,
                                                        const LoadOptions& options) {
  ESS_ASSIGN_OR_RETURN(FolderConfig read, ReadConfig(folder));
  const ConfigReader config = read.Reader();
  ESS_ASSIGN_OR_RETURN(const Architecture* const architecture, ChooseArchitecture(config));
  if (!options.random_init_seed && config.Has("quantization_config")) {
    return config.Unsupported("quantization_config", "none");
  }
  return ConfiguredArchitecture{std::move(read), architecture};
}

absl::StatusOr<checkpoint::WeightMap> OpenWeights(const std::filesystem::path& folder,
                                                  const Architecture& architecture,
                                                  const std::string& device, bool as_stored) {
  ESS_ASSIGN_OR_RETURN(checkpoint::WeightMap weights,
                       checkpoint::WeightMap::Open(folder, device, as_stored));
  if (IsMistralFolder(folder)) weights.StripPrefix({"model."});
  weights.StripPrefix(architecture.base_prefixes);
  for (const std::string& suffix : architecture.ignored_suffixes) weights.IgnoreSuffix(suffix);
  return weights;
}

// Builds the model from `tensors`, by way of the host where weights are to be kept there.
absl::StatusOr<std::unique_ptr<SequenceModel>> Create(const Architecture& architecture,
                                                      const ConfigReader& config,
                                                      TensorSource& tensors,
                                                      const LoadOptions& options) {
  if (options.host_weights == nullptr) return architecture.create(config, tensors, options.device);
  KeepingTensors keeping(tensors, options.device, *options.host_weights);
  ESS_ASSIGN_OR_RETURN(auto model, architecture.create(config, keeping, options.device));
  options.host_weights->totals = tensors.Totals();
  return model;
}

absl::StatusOr<std::unique_ptr<SequenceModel>> LoadModel(const std::filesystem::path& folder,
                                                         const LoadOptions& options) {
  ESS_ASSIGN_OR_RETURN(const ConfiguredArchitecture configured, ReadArchitecture(folder, options));
  const ConfigReader config = configured.config.Reader();
  const Architecture& architecture = *configured.architecture;
  if (options.host_weights != nullptr && !options.host_weights->tensors.empty()) {
    KeptTensors tensors(*options.host_weights, options.device);
    return architecture.create(config, tensors, options.device);
  }
  const std::string first_device = options.host_weights == nullptr ? options.device : "cpu";
  if (options.random_init_seed) {
    ESS_ASSIGN_OR_RETURN(InitialWeights initial, architecture.initial_weights(config));
    RandomWeights tensors(std::move(initial), *options.random_init_seed, first_device);
    return Create(architecture, config, tensors, options);
  }
  ESS_ASSIGN_OR_RETURN(checkpoint::WeightMap weights,
                       OpenWeights(folder, architecture, first_device, options.as_stored));
  CheckpointTensors tensors(weights);
  ESS_ASSIGN_OR_RETURN(auto model, Create(architecture, config, tensors, options));
  ESS_RETURN_IF_ERROR(weights.CheckAllTaken());
  return model;
}

absl::StatusOr<int64_t> MeasureInitialWeights(const ConfigReader& config,
                                              const Architecture& architecture) {
  ESS_ASSIGN_OR_RETURN(const InitialWeights initial, architecture.initial_weights(config));
  absl::Status status;
  for (const char* const device : {"meta", "cpu"}) {
    WeightShapes tensors(initial, c10::Device(device));
    status = CatchTorch("measuring the model",
                        [&] { return architecture.create(config, tensors, device).status(); });
    if (status.ok()) return tensors.Totals().bytes;
    if (status.code() != absl::StatusCode::kInternal) return status;
  }
  return status;
}

absl::StatusOr<int64_t> Measure(const std::filesystem::path& folder, const LoadOptions& options) {
  ESS_ASSIGN_OR_RETURN(const ConfiguredArchitecture configured, ReadArchitecture(folder, options));
  const ConfigReader config = configured.config.Reader();
  if (options.random_init_seed) {
    return MeasureInitialWeights(config, *configured.architecture);
  }
  ESS_ASSIGN_OR_RETURN(
      const checkpoint::WeightMap weights,
      OpenWeights(folder, *configured.architecture, options.device, options.as_stored));
  return weights.LoadBytes();
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

absl::StatusOr<int64_t> MeasureModelFolder(const std::filesystem::path& folder,
                                           const LoadOptions& options) {
  int64_t bytes = 0;
  ESS_RETURN_IF_ERROR(CatchTorch("measuring the model", [&]() -> absl::Status {
    ESS_ASSIGN_OR_RETURN(bytes, Measure(folder, options));
    return absl::OkStatus();
  }));
  return bytes;
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
