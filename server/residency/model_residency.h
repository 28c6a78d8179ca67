// Which models are in memory, and who uses them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/base/cancellation.h"
#include "server/models/model_loader.h"
#include "server/models/sequence_model.h"
#include "server/residency/model_catalogue.h"
#include "server/telemetry/metrics.h"
#include "server/tokenization/tokenizer.h"

namespace ess::residency {

//            Acquire, Load             loaded
//   kCold ------------------> kLoading ------> kReady
//     ^                        |   ^             |
//     |                 failed |   | Load        | Unload
//     |                        v   |             v
//     |                       kFailed        kUnloading
//     +-------------------------+----------------+
//               Unload               last lease given back
enum class ModelState { kCold, kLoading, kReady, kUnloading, kFailed };

// "cold", "loading", ...: the label of the metrics.
const char* ModelStateName(ModelState state);

struct ResidentModel {
  models::LoadedModel loaded;
  std::string weight_digest;
};

// What outsiders see of a model.
struct ModelStatus {
  std::string name;
  ModelState state = ModelState::kCold;
  std::string reason;        // Of kFailed.
  std::string architecture;  // Empty when config.json cannot be read.
  ModelOptions options;
  // Null unless the model is in memory: kReady, or kUnloading with a lease.
  std::shared_ptr<const models::ModelDescription> description;
  std::string weight_digest;
  bool has_tokenizer = false;
};

class ModelResidency;

// Keeps a model in memory. Give it back soon: an unload waits for it. Move-only.
class ModelLease {
 public:
  ModelLease(ModelLease&& other) noexcept;
  ModelLease& operator=(ModelLease&&) = delete;
  ~ModelLease();

  const std::string& name() const { return name_; }
  const models::SequenceModel& model() const { return *resident_->loaded.model; }
  // Null when the model has no tokenizer.
  const tokenization::Tokenizer* tokenizer() const { return resident_->loaded.tokenizer.get(); }

 private:
  friend class ModelResidency;
  ModelLease(ModelResidency& residency, std::string name, const ResidentModel& resident)
      : residency_(&residency), name_(std::move(name)), resident_(&resident) {}

  ModelResidency* residency_;
  std::string name_;
  const ResidentModel* resident_;
};

// Thread-safe. A load runs on the thread that asked first; others wait for it.
class ModelResidency {
 public:
  using Loader = std::function<absl::StatusOr<ResidentModel>(const std::filesystem::path& folder,
                                                             const models::LoadOptions& options)>;

  struct Options {
    std::string device = "cpu";   // Where models go that name no device.
    std::string metrics_measure;  // Label of ess_model_info.
    Loader loader;                // Default: LoadResidentModel.
  };

  // `catalogue` and `metrics` outlive this.
  ModelResidency(ModelCatalogue& catalogue, telemetry::Metrics& metrics, Options options);
  ~ModelResidency();

  // The model, loaded first when it is cold.
  // Errors: kNotFound; kFailedPrecondition  its load failed, now or before, and the reason is in
  //         the message, or an option this server does not have; kCancelled, kDeadlineExceeded
  //         while waiting.
  absl::StatusOr<ModelLease> Acquire(const std::string& name,
                                     const CancellationToken& cancellation);

  // Loads a model, under `alias` when that is not empty; a failed one is tried again. Without
  // options (nullptr) those of the catalogue hold. Options hold until the model is unloaded; an
  // alias is then loaded again as it was loaded last, another name as the catalogue says.
  // Errors: those of models::LoadModelFolder, of ModelCatalogue::Add and of ResolveDevice;
  //         kNotFound; kAlreadyExists  loaded with other options.
  absl::StatusOr<ModelStatus> Load(const std::string& name, const std::string& alias,
                                   const ModelOptions* options,
                                   const CancellationToken& cancellation);

  // Takes the model out of memory when its last lease is given back. Returns the bytes of its
  // weights; 0 when it was not loaded.
  // Errors: kNotFound; kCancelled, kDeadlineExceeded  while waiting for leases.
  absl::StatusOr<int64_t> Unload(const std::string& name, const CancellationToken& cancellation);

  absl::StatusOr<ModelStatus> Get(const std::string& name) const;
  std::vector<ModelStatus> List() const;

 private:
  friend class ModelLease;

  struct Slot {
    ModelState state = ModelState::kCold;
    absl::Status failure;
    ModelOptions options;
    std::unique_ptr<const ResidentModel> resident;
    std::shared_ptr<const models::ModelDescription> description;
    int leases = 0;
  };

  void Release(const std::string& name);
  Slot& SlotOf(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetState(const std::string& name, Slot& slot, ModelState state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until no load or unload of this slot is under way.
  absl::Status AwaitSettled(const Slot& slot, const CancellationToken& cancellation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // REQUIRES: the slot is kCold or kFailed. Unlocks while it loads.
  absl::Status LoadSlot(const CatalogueEntry& entry, const ModelOptions& options, Slot& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a model that is kUnloading out of memory and returns the bytes of its weights. Unlocks
  // meanwhile: nobody else touches a slot in that state.
  int64_t Free(const std::string& name, Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where a model with these options goes. Errors: those of ResolveDevice.
  absl::StatusOr<std::string> DeviceOf(const ModelOptions& options) const;
  ModelStatus StatusOf(const CatalogueEntry& entry) const;

  ModelCatalogue& catalogue_;
  telemetry::Metrics& metrics_;
  const Options options_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Slot> slots_ ABSL_GUARDED_BY(mutex_);
};

// The real loader: the model of a folder, with the digest of its weights.
absl::StatusOr<ResidentModel> LoadResidentModel(const std::filesystem::path& folder,
                                                const models::LoadOptions& options);

}  // namespace ess::residency
