#include "server/residency/model_residency.h"

#include <malloc.h>

#include <future>
#include <utility>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/device.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/checkpoint/weight_digest.h"

namespace ess::residency {
namespace {

constexpr size_t kMaxReasonBytes = 4096;  // Of why a load failed: it is kept, and answered.

constexpr ModelState kAllStates[] = {ModelState::kCold, ModelState::kLoading, ModelState::kReady,
                                     ModelState::kUnloading, ModelState::kFailed};

}  // namespace

const char* ModelStateName(ModelState state) {
  switch (state) {
    case ModelState::kCold:
      return "cold";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kUnloading:
      return "unloading";
    case ModelState::kFailed:
      return "failed";
  }
  return "";
}

ModelLease::ModelLease(ModelLease&& other) noexcept
    : residency_(std::exchange(other.residency_, nullptr)),
      name_(std::move(other.name_)),
      resident_(other.resident_) {}

ModelLease::~ModelLease() {
  if (residency_ != nullptr) residency_->Release(name_);
}

ModelResidency::ModelResidency(ModelCatalogue& catalogue, telemetry::Metrics& metrics,
                               Options options)
    : catalogue_(catalogue), metrics_(metrics), options_([&options] {
        if (!options.loader) options.loader = LoadResidentModel;
        return std::move(options);
      }()) {}

ModelResidency::~ModelResidency() = default;

absl::StatusOr<ModelLease> ModelResidency::Acquire(const std::string& name,
                                                   const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(const CatalogueEntry entry, catalogue_.Find(name));
  absl::MutexLock lock(&mutex_);
  Slot& slot = SlotOf(name);
  ESS_RETURN_IF_ERROR(AwaitSettled(slot, cancellation));
  if (slot.state == ModelState::kCold) {
    LoadSlot(entry, entry.options, slot).IgnoreError();
  }
  if (slot.state == ModelState::kFailed) {
    return absl::FailedPreconditionError(fmt::format("model '{}' could not be loaded: {}", name,
                                                     std::string(slot.failure.message())));
  }
  ++slot.leases;
  metrics_.model_last_used.Set({name}, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  return ModelLease(*this, name, *slot.resident);
}

absl::StatusOr<ModelStatus> ModelResidency::Load(const std::string& name, const std::string& alias,
                                                 const ModelOptions* options,
                                                 const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(CatalogueEntry entry, catalogue_.Find(name));
  if (options != nullptr) {
    // Before anything is changed: a wrong request fails neither the model nor makes an alias.
    ESS_RETURN_IF_ERROR(DeviceOf(*options).status());
    entry.options = *options;
  }
  if (!alias.empty() && alias != name) {
    entry.name = alias;
    ESS_RETURN_IF_ERROR(catalogue_.Add(entry));
  }
  {
    absl::MutexLock lock(&mutex_);
    Slot& slot = SlotOf(entry.name);
    ESS_RETURN_IF_ERROR(AwaitSettled(slot, cancellation));
    if (slot.state != ModelState::kReady) {
      ESS_RETURN_IF_ERROR(LoadSlot(entry, entry.options, slot));
      if (options != nullptr) catalogue_.RememberOptions(entry.name, entry.options);
    } else if (options != nullptr && slot.options != *options) {
      return absl::AlreadyExistsError(fmt::format(
          "options: model '{}' is loaded with other options; unload it first", entry.name));
    }
  }
  return StatusOf(entry);
}

absl::StatusOr<int64_t> ModelResidency::Unload(const std::string& name,
                                               const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(catalogue_.Find(name).status());
  absl::MutexLock lock(&mutex_);
  Slot& slot = SlotOf(name);
  ESS_RETURN_IF_ERROR(AwaitSettled(slot, cancellation));
  int64_t bytes = 0;
  if (slot.state == ModelState::kReady) {
    SetState(name, slot, ModelState::kUnloading);
    auto unused = [&slot] { return slot.leases == 0; };
    const absl::Status waited = AwaitOrCancel(mutex_, absl::Condition(&unused), cancellation);
    if (!waited.ok()) {
      SetState(name, slot, ModelState::kReady);
      return waited;
    }
    bytes = Free(name, slot);
  }
  slot.failure = absl::OkStatus();
  SetState(name, slot, ModelState::kCold);
  return bytes;
}

int64_t ModelResidency::Free(const std::string& name, Slot& slot) {
  std::unique_ptr<const ResidentModel> resident = std::move(slot.resident);
  const std::shared_ptr<const models::ModelDescription> description = std::move(slot.description);
  mutex_.Unlock();
  metrics_.model_bytes.Set({name, "device"}, 0);
  metrics_.model_info.Remove({name, description->architecture, description->dtype,
                              std::to_string(description->mixers.size()), description->device,
                              options_.metrics_measure});
  resident = nullptr;
  malloc_trim(0);  // Freed weights go back to the system.
  ESS_LOG(info, "unloaded model={} bytes={}", name, description->weight_bytes);
  mutex_.Lock();
  return description->weight_bytes;
}

absl::StatusOr<ModelStatus> ModelResidency::Get(const std::string& name) const {
  ESS_ASSIGN_OR_RETURN(const CatalogueEntry entry, catalogue_.Find(name));
  return StatusOf(entry);
}

std::vector<ModelStatus> ModelResidency::List() const {
  std::vector<ModelStatus> statuses;
  for (const std::string& name : catalogue_.Names()) {
    absl::StatusOr<ModelStatus> status = Get(name);
    if (status.ok()) statuses.push_back(*std::move(status));  // Else its folder has just gone.
  }
  return statuses;
}

void ModelResidency::Release(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  --SlotOf(name).leases;
}

ModelResidency::Slot& ModelResidency::SlotOf(const std::string& name) { return slots_[name]; }

void ModelResidency::SetState(const std::string& name, Slot& slot, ModelState state) {
  slot.state = state;
  for (const ModelState each : kAllStates) {
    metrics_.model_state.Set({name, ModelStateName(each)}, each == state ? 1 : 0);
  }
}

absl::Status ModelResidency::AwaitSettled(const Slot& slot, const CancellationToken& cancellation) {
  auto settled = [&slot] {
    return slot.state != ModelState::kLoading && slot.state != ModelState::kUnloading;
  };
  return AwaitOrCancel(mutex_, absl::Condition(&settled), cancellation);
}

absl::Status ModelResidency::LoadSlot(const CatalogueEntry& entry, const ModelOptions& options,
                                      Slot& slot) {
  SetState(entry.name, slot, ModelState::kLoading);
  mutex_.Unlock();
  const absl::Time start = absl::Now();
  absl::StatusOr<ResidentModel> resident = absl::UnknownError("not loaded");
  const absl::Status loaded = CatchTorch("load", [&]() -> absl::Status {
    ESS_ASSIGN_OR_RETURN(const std::string device, DeviceOf(options));
    resident = options_.loader(entry.folder, {.device = device,
                                              .as_stored = options.as_stored,
                                              .random_init_seed = options.random_init_seed});
    return resident.status();
  });
  if (!loaded.ok()) resident = loaded;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  mutex_.Lock();

  const std::string code = absl::StatusCodeToString(resident.status().code());
  metrics_.model_load_duration.Observe({entry.name, "disk"}, seconds);
  metrics_.model_loads.Increment({entry.name, code});
  slot.options = options;
  slot.failure = absl::Status(resident.status().code(),
                              CutText(std::string(resident.status().message()), kMaxReasonBytes));
  if (!resident.ok()) {
    SetState(entry.name, slot, ModelState::kFailed);
    ESS_LOG(error, "load of model={} failed after {:.2f} s: {}: {}", entry.name, seconds, code,
            std::string(slot.failure.message()));
    return slot.failure;
  }
  slot.resident = std::make_unique<const ResidentModel>(*std::move(resident));
  const models::ModelDescription& description = slot.resident->loaded.model->description();
  slot.description = std::make_shared<const models::ModelDescription>(description);
  metrics_.model_bytes.Set({entry.name, "device"}, static_cast<double>(description.weight_bytes));
  metrics_.model_info.Set(
      {entry.name, description.architecture, description.dtype,
       std::to_string(description.mixers.size()), description.device, options_.metrics_measure},
      1);
  SetState(entry.name, slot, ModelState::kReady);
  ESS_LOG(info, "loaded model={} architecture={} device={} dtype={} bytes={} seconds={:.2f}",
          entry.name, description.architecture, description.device, description.dtype,
          description.weight_bytes, seconds);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ModelResidency::DeviceOf(const ModelOptions& options) const {
  if (options.device.empty()) return options_.device;
  return ResolveDevice(options.device);
}

ModelStatus ModelResidency::StatusOf(const CatalogueEntry& entry) const {
  ModelStatus status{.name = entry.name, .options = entry.options};
  {
    absl::MutexLock lock(&mutex_);
    const auto found = slots_.find(entry.name);
    if (found != slots_.end()) {
      const Slot& slot = found->second;
      status.state = slot.state;
      if (slot.state == ModelState::kFailed) {
        status.reason = fmt::format("{}: {}", absl::StatusCodeToString(slot.failure.code()),
                                    std::string(slot.failure.message()));
      }
      if (slot.resident != nullptr) {
        status.options = slot.options;
        status.description = slot.description;
        status.architecture = slot.description->architecture;
        status.weight_digest = slot.resident->weight_digest;
        status.has_tokenizer = slot.resident->loaded.tokenizer != nullptr;
        return status;
      }
    }
  }
  status.architecture = models::ReadModelType(entry.folder).value_or("");
  return status;
}

absl::StatusOr<ResidentModel> LoadResidentModel(const std::filesystem::path& folder,
                                                const models::LoadOptions& options) {
  auto digest = std::async(std::launch::async, [&folder, seed = options.random_init_seed] {
    return seed ? checkpoint::InitialWeightDigest(models::FindConfig(folder), *seed)
                : checkpoint::WeightDigest(folder);
  });
  absl::StatusOr<models::LoadedModel> loaded = models::LoadModelFolder(folder, options);
  absl::StatusOr<std::string> weight_digest = digest.get();
  ESS_RETURN_IF_ERROR(loaded.status());
  ESS_RETURN_IF_ERROR(weight_digest.status());
  return ResidentModel{.loaded = *std::move(loaded), .weight_digest = *std::move(weight_digest)};
}

}  // namespace ess::residency
