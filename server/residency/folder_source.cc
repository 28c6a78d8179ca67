#include "server/residency/folder_source.h"

#include <algorithm>
#include <future>
#include <limits>
#include <utility>

#include "server/base/available_memory.h"
#include "server/base/byte_text.h"
#include "server/base/device.h"
#include "server/base/device_memory.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/checkpoint/weight_digest.h"
#include "server/checkpoint/weight_stamp.h"

namespace ess::residency {
namespace {

constexpr char kCpu[] = "cpu";
constexpr int64_t kSmallestMargin = int64_t{512} << 20;

}  // namespace

absl::StatusOr<ResidentModel> LoadResidentModel(const std::filesystem::path& folder,
                                                const models::LoadOptions& options) {
  if (options.host_weights != nullptr && !options.host_weights->tensors.empty()) {
    ESS_ASSIGN_OR_RETURN(models::LoadedModel loaded, models::LoadModelFolder(folder, options));
    return ResidentModel{.loaded = std::move(loaded), .weight_digest = ""};
  }
  const std::string stamp = checkpoint::WeightStamp(folder);
  auto digest = std::async(std::launch::async, [&folder, seed = options.random_init_seed] {
    return seed ? checkpoint::InitialWeightDigest(models::FindConfig(folder), *seed)
                : checkpoint::WeightDigest(folder);
  });
  absl::StatusOr<models::LoadedModel> loaded = models::LoadModelFolder(folder, options);
  absl::StatusOr<std::string> weight_digest = digest.get();
  ESS_RETURN_IF_ERROR(loaded.status());
  ESS_RETURN_IF_ERROR(weight_digest.status());
  // The digest would be that of other weights.
  if (!options.random_init_seed && checkpoint::WeightStamp(folder) != stamp) {
    return absl::DataLossError("the weights changed while they were read; load them again");
  }
  return ResidentModel{.loaded = *std::move(loaded), .weight_digest = *std::move(weight_digest)};
}

ModelWeights::ModelWeights(std::string name, ResidentModel model, telemetry::Metrics& metrics,
                           std::string metrics_measure)
    : name_(std::move(name)),
      model_(std::move(model)),
      description_(
          std::make_shared<const models::ModelDescription>(model_.loaded.model->description())),
      metrics_(metrics),
      metrics_measure_(std::move(metrics_measure)) {}

void ModelWeights::SetServing(bool serving) {
  const std::array<std::string, 6> labels = {name_,
                                             description_->architecture,
                                             description_->dtype,
                                             std::to_string(description_->mixers.size()),
                                             description_->device,
                                             metrics_measure_};
  if (serving) {
    metrics_.model_info.Set(labels, 1);
  } else {
    metrics_.model_info.Remove(labels);
  }
}

FolderSource::FolderSource(telemetry::Metrics& metrics, Options options)
    : metrics_(metrics),
      options_(std::move(options)),
      host_bytes_at_start_(AvailableMemoryBytes()),
      host_tier_(options_.host_memory_budget_bytes, metrics) {
  Budget(options_.device);  // While nothing of ours is in memory.
}

absl::StatusOr<std::string> FolderSource::DeviceOf(const ModelOptions& options) const {
  if (options.device.empty()) return options_.device;
  return ResolveDevice(options.device);
}

absl::StatusOr<models::LoadOptions> FolderSource::LoadOptionsOf(const CatalogueEntry& entry) const {
  ESS_ASSIGN_OR_RETURN(std::string device, DeviceOf(entry.options));
  return models::LoadOptions{.device = std::move(device),
                             .as_stored = entry.options.as_stored,
                             .random_init_seed = entry.options.random_init_seed};
}

absl::StatusOr<MemoryNeeds> FolderSource::Measure(const CatalogueEntry& entry) {
  ESS_ASSIGN_OR_RETURN(const models::LoadOptions options, LoadOptionsOf(entry));
  ESS_ASSIGN_OR_RETURN(const int64_t bytes, options_.measurer(entry.folder, options));
  return MemoryNeeds{.device = options.device, .bytes = bytes};
}

int64_t FolderSource::AutomaticBudget(const std::string& device) const {
  if (device == kCpu) {
    const int64_t margin = std::max(kSmallestMargin, host_bytes_at_start_ / 10);
    return host_bytes_at_start_ - std::min(margin, host_bytes_at_start_ / 2);
  }
  const absl::StatusOr<DeviceMemory> memory = ReadDeviceMemory(device);
  if (memory.ok()) return memory->total_bytes / 10 * 9;
  ESS_LOG(warn, "device {} does not say how much memory it has; it has no budget: {}", device,
          std::string(memory.status().message()));
  return std::numeric_limits<int64_t>::max() / 2;
}

int64_t FolderSource::Budget(const std::string& device) {
  absl::MutexLock lock(&mutex_);
  const auto known = budgets_.find(device);
  if (known != budgets_.end()) return known->second;
  const int64_t budget = options_.device_memory_budget_bytes > 0
                             ? options_.device_memory_budget_bytes
                             : AutomaticBudget(device);
  budgets_[device] = budget;
  ESS_LOG(info, "device {} has a budget of {}", device, ByteText(budget));
  metrics_.device_memory.Set({device, "budget"}, static_cast<double>(budget));
  return budget;
}

absl::StatusOr<std::unique_ptr<ModelWeights>> FolderSource::LoadFrom(const CatalogueEntry& entry,
                                                                     models::LoadOptions options,
                                                                     HostCopy* host_copy) {
  if (host_copy != nullptr) options.host_weights = &host_copy->weights;
  std::unique_ptr<ModelWeights> weights;
  ESS_RETURN_IF_ERROR(CatchTorch("load", [&]() -> absl::Status {
    ESS_ASSIGN_OR_RETURN(ResidentModel model, options_.loader(entry.folder, options));
    if (host_copy != nullptr && model.weight_digest.empty()) {
      model.weight_digest = host_copy->weight_digest;
    }
    weights = std::make_unique<ModelWeights>(entry.name, std::move(model), metrics_,
                                             options_.metrics_measure);
    return absl::OkStatus();
  }));
  if (host_copy != nullptr) host_copy->weight_digest = weights->model().weight_digest;
  return weights;
}

absl::StatusOr<LoadedWeights> FolderSource::Load(const CatalogueEntry& entry, bool fresh) {
  ESS_ASSIGN_OR_RETURN(const models::LoadOptions options, LoadOptionsOf(entry));
  absl::StatusOr<std::unique_ptr<ModelWeights>> weights = absl::UnknownError("not loaded");
  Tier from = Tier::kDisk;
  std::shared_ptr<HostCopy> copy;
  const bool has_host_tier = options.device != kCpu && options_.host_memory_budget_bytes > 0;
  if (has_host_tier && !fresh) copy = host_tier_.Find(entry);
  if (copy != nullptr) {
    weights = LoadFrom(entry, options, copy.get());
    from = Tier::kHost;
    if (weights.status().code() == absl::StatusCode::kDataLoss) {
      ESS_LOG(warn, "model={} cannot be built from host memory, reading its files: {}", entry.name,
              std::string(weights.status().message()));
      host_tier_.Forget(entry.name);
      copy = nullptr;
    }
  }
  if (copy == nullptr) {
    from = Tier::kDisk;
    if (has_host_tier) {
      ESS_ASSIGN_OR_RETURN(const int64_t bytes, options_.measurer(entry.folder, options));
      if (host_tier_.MakeRoom(bytes)) copy = std::make_shared<HostCopy>();
    }
    weights = LoadFrom(entry, options, copy.get());
    if (weights.ok() && copy != nullptr) host_tier_.Keep(entry, std::move(copy));
  }
  if (!weights.ok()) ReleaseUnusedMemory(options.device).IgnoreError();
  ReportMemory(options.device);
  ESS_RETURN_IF_ERROR(weights.status());
  return LoadedWeights{.weights = *std::move(weights), .from = from};
}

void FolderSource::Reclaim(const std::string& device) {
  const absl::Status status = ReleaseUnusedMemory(device);
  if (!status.ok()) ESS_LOG(warn, "{}", std::string(status.message()));
  ReportMemory(device);
}

void FolderSource::ReportMemory(const std::string& device) {
  const absl::StatusOr<DeviceMemory> memory = ReadDeviceMemory(device);
  if (!memory.ok()) return;  // Said once, when the budget was made.
  const std::pair<const char*, int64_t> kinds[] = {{"allocated", memory->allocated_bytes},
                                                   {"reserved", memory->reserved_bytes},
                                                   {"free", memory->free_bytes}};
  for (const auto& [kind, bytes] : kinds) {
    metrics_.device_memory.Set({device, kind}, static_cast<double>(bytes));
  }
}

}  // namespace ess::residency
