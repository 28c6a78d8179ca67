#include "server/residency/model_residency.h"

#include <optional>

#include "server/base/status_macros.h"

namespace ess::residency {
namespace {

void Describe(const ModelWeights& weights, ModelStatus& status) {
  status.description = weights.description();
  status.architecture = weights.description()->architecture;
  status.weight_digest = weights.model().weight_digest;
  status.has_tokenizer = weights.model().loaded.tokenizer != nullptr;
}

}  // namespace

ModelResidency::ModelResidency(ModelCatalogue& catalogue, telemetry::Metrics& metrics,
                               Options options)
    : catalogue_(catalogue),
      source_(metrics, std::move(options.source)),
      residents_(source_, metrics, options.residents) {}

absl::StatusOr<CatalogueEntry> ModelResidency::EntryOf(const std::string& name) const {
  ESS_ASSIGN_OR_RETURN(CatalogueEntry entry, catalogue_.Find(name));
  absl::MutexLock lock(&mutex_);
  const auto requested = requested_options_.find(name);
  if (requested != requested_options_.end()) entry.options = requested->second;
  return entry;
}

void ModelResidency::WhenReady(const std::string& name,
                               std::shared_ptr<const CancellationToken> cancellation,
                               std::function<void(absl::StatusOr<ModelLease>)> done) {
  absl::StatusOr<CatalogueEntry> entry = EntryOf(name);
  if (!entry.ok()) return done(entry.status());
  residents_.WhenReady({.entry = *std::move(entry), .cancellation = std::move(cancellation)},
                       [done = std::move(done)](absl::StatusOr<ResidentModels::Lease> lease) {
                         if (!lease.ok()) return done(lease.status());
                         done(ModelLease(*std::move(lease)));
                       });
}

absl::StatusOr<ResidentModels::Lease> ModelResidency::Await(ResidentModels::Request request,
                                                            const CancellationToken& cancellation) {
  struct Answer {
    absl::Mutex mutex;
    std::optional<absl::StatusOr<ResidentModels::Lease>> result ABSL_GUARDED_BY(mutex);
  };
  const auto answer = std::make_shared<Answer>();
  const auto relay = std::make_shared<CancellationToken>(cancellation.deadline());
  request.cancellation = relay;
  residents_.WhenReady(std::move(request), [answer](absl::StatusOr<ResidentModels::Lease> result) {
    absl::MutexLock lock(&answer->mutex);
    answer->result.emplace(std::move(result));
  });
  absl::MutexLock lock(&answer->mutex);
  auto answered = [&answer] { return answer->result.has_value(); };
  const absl::Status waited =
      AwaitOrCancel(answer->mutex, absl::Condition(&answered), cancellation);
  if (!waited.ok()) {
    relay->Cancel();
    return waited;
  }
  return *std::move(answer->result);
}

absl::StatusOr<ModelLease> ModelResidency::Acquire(const std::string& name,
                                                   const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(CatalogueEntry entry, EntryOf(name));
  ESS_ASSIGN_OR_RETURN(ResidentModels::Lease lease,
                       Await({.entry = std::move(entry)}, cancellation));
  return ModelLease(std::move(lease));
}

absl::StatusOr<WorkReservation> ModelResidency::ReserveWork(const ModelLease& lease, int64_t bytes,
                                                            const CancellationToken& cancellation) {
  return residents_.ReserveWork(lease.lease_, bytes, cancellation);
}

absl::StatusOr<ModelStatus> ModelResidency::Load(const LoadRequest& request,
                                                 const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(CatalogueEntry entry, EntryOf(request.name));
  if (request.options) {
    // Before anything is changed: a wrong request fails neither the model nor makes an alias.
    ESS_RETURN_IF_ERROR(source_.DeviceOf(*request.options).status());
    entry.options = *request.options;
  }
  if (!request.alias.empty() && request.alias != request.name) {
    entry.name = request.alias;
    ESS_RETURN_IF_ERROR(catalogue_.Add(entry));
    // An alias that is there has options of its own.
    if (!request.options) {
      ESS_ASSIGN_OR_RETURN(entry, EntryOf(request.alias));
    }
  }
  ESS_RETURN_IF_ERROR(Await({.entry = entry,
                             .explicit_load = true,
                             .must_match = request.options.has_value(),
                             .reload = request.reload},
                            cancellation)
                          .status());
  if (request.options) {
    absl::MutexLock lock(&mutex_);
    requested_options_[entry.name] = *request.options;
    catalogue_.RememberOptions(entry.name, entry.options);
  }
  return StatusOf(entry);
}

absl::StatusOr<int64_t> ModelResidency::Unload(const std::string& name,
                                               const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(catalogue_.Find(name).status());
  ESS_ASSIGN_OR_RETURN(const int64_t bytes, residents_.Unload(name, cancellation));
  absl::MutexLock lock(&mutex_);
  requested_options_.erase(name);
  return bytes;
}

absl::StatusOr<ModelStatus> ModelResidency::Get(const std::string& name) const {
  ESS_ASSIGN_OR_RETURN(const CatalogueEntry entry, EntryOf(name));
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

ModelStatus ModelResidency::Describe(const ModelLease& lease) const {
  ModelStatus status{
      .name = lease.name(), .state = ModelState::kReady, .options = lease.lease_.options()};
  residency::Describe(lease.weights(), status);
  return status;
}

ModelStatus ModelResidency::StatusOf(const CatalogueEntry& entry) const {
  ModelStatus status{.name = entry.name, .options = entry.options};
  const ResidentModels::Status resident =
      residents_.Get(entry.name, [&status](const Weights& weights) {
        residency::Describe(static_cast<const ModelWeights&>(weights), status);
      });
  status.state = resident.state;
  status.reason = resident.reason;
  if (resident.options) status.options = *resident.options;
  if (status.description == nullptr) {
    status.architecture = models::ReadModelType(entry.folder).value_or("");
  }
  return status;
}

}  // namespace ess::residency
