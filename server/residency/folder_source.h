// Models of folders, onto devices: the source of weights of the real server.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/models/model_loader.h"
#include "server/models/sequence_model.h"
#include "server/residency/host_tier.h"
#include "server/residency/model_source.h"
#include "server/telemetry/metrics.h"
#include "server/tokenization/tokenizer.h"

namespace ess::residency {

struct ResidentModel {
  models::LoadedModel loaded;
  std::string weight_digest;
};

// The model of a folder, with the digest of its weights; without it when they come from the host.
absl::StatusOr<ResidentModel> LoadResidentModel(const std::filesystem::path& folder,
                                                const models::LoadOptions& options);

// Weights, as this source makes them.
class ModelWeights final : public Weights {
 public:
  // `metrics` outlives this.
  ModelWeights(std::string name, ResidentModel model, telemetry::Metrics& metrics,
               std::string metrics_measure);

  int64_t bytes() const override { return description_->weight_bytes; }
  void SetServing(bool serving) override;  // ess_model_info

  const ResidentModel& model() const { return model_; }
  const std::shared_ptr<const models::ModelDescription>& description() const {
    return description_;
  }

 private:
  const std::string name_;
  const ResidentModel model_;
  const std::shared_ptr<const models::ModelDescription> description_;
  telemetry::Metrics& metrics_;
  const std::string metrics_measure_;
};

class FolderSource final : public ModelSource {
 public:
  using Loader = std::function<absl::StatusOr<ResidentModel>(const std::filesystem::path& folder,
                                                             const models::LoadOptions& options)>;
  using Measurer = std::function<absl::StatusOr<int64_t>(const std::filesystem::path& folder,
                                                         const models::LoadOptions& options)>;

  struct Options {
    std::string device = "cpu";   // Where models go that name no device.
    std::string metrics_measure;  // Label of ess_model_info.
    // Of each device. 0: of the CPU, what is available when the server starts less a tenth, at
    // least 512 MiB; of an accelerator, nine tenths of its memory.
    int64_t device_memory_budget_bytes = 0;
    int64_t host_memory_budget_bytes = 0;
    Loader loader = LoadResidentModel;
    Measurer measurer = models::MeasureModelFolder;
  };

  // `metrics` outlives this.
  FolderSource(telemetry::Metrics& metrics, Options options);

  // Where a model with these options goes. Errors: those of ResolveDevice.
  absl::StatusOr<std::string> DeviceOf(const ModelOptions& options) const;

  absl::StatusOr<MemoryNeeds> Measure(const CatalogueEntry& entry) override;
  int64_t Budget(const std::string& device) override;
  absl::StatusOr<LoadedWeights> Load(const CatalogueEntry& entry, bool fresh) override;
  void Reclaim(const std::string& device) override;
  void Forget(const std::string& name) override { host_tier_.Forget(name); }

 private:
  absl::StatusOr<models::LoadOptions> LoadOptionsOf(const CatalogueEntry& entry) const;
  // Fills `host_copy` or uses what it has; null: no copy.
  absl::StatusOr<std::unique_ptr<ModelWeights>> LoadFrom(const CatalogueEntry& entry,
                                                         models::LoadOptions options,
                                                         HostCopy* host_copy);
  int64_t AutomaticBudget(const std::string& device) const;
  // ess_device_memory_bytes
  void ReportMemory(const std::string& device);

  telemetry::Metrics& metrics_;
  const Options options_;
  const int64_t host_bytes_at_start_;
  HostTier host_tier_;
  absl::Mutex mutex_;
  std::map<std::string, int64_t> budgets_ ABSL_GUARDED_BY(mutex_);  // By device.
};

}  // namespace ess::residency
