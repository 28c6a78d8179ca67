#include "server/residency/model_residency.h"

#include <optional>

#include "absl/synchronization/notification.h"
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

absl::StatusOr<ModelLease> ModelResidency::Acquire(const std::string& name,
                                                   const CancellationToken& cancellation,
                                                   WaitAside aside) {
  struct Answer {
    absl::Mutex mutex;
    std::optional<absl::StatusOr<ModelLease>> result ABSL_GUARDED_BY(mutex);
  };
  const auto answer = std::make_shared<Answer>();
  const auto relay = std::make_shared<CancellationToken>(cancellation.deadline());
  WhenReady(name, relay, [answer](absl::StatusOr<ModelLease> result) {
    absl::MutexLock lock(&answer->mutex);
    answer->result.emplace(std::move(result));
  });
  const auto answered = [&answer] { return answer->result.has_value(); };
  const auto wait = [&] {
    absl::MutexLock lock(&answer->mutex);
    return AwaitOrCancel(answer->mutex, absl::Condition(&answered), cancellation);
  };
  absl::ReleasableMutexLock lock(&answer->mutex);
  if (answered()) return *std::move(answer->result);
  lock.Release();
  if (const absl::Status waited = aside(wait); !waited.ok()) {
    relay->Cancel();
    return waited;
  }
  absl::MutexLock again(&answer->mutex);
  return *std::move(answer->result);
}

absl::StatusOr<WorkReservation> ModelResidency::ReserveWork(const ModelLease& lease, int64_t bytes,
                                                            const CancellationToken& cancellation,
                                                            WaitAside aside) {
  return residents_.ReserveWork(lease.lease_, bytes, cancellation, aside);
}

absl::StatusOr<CatalogueEntry> ModelResidency::EntryToLoad(const LoadRequest& request) {
  ESS_ASSIGN_OR_RETURN(CatalogueEntry entry, EntryOf(request.name));
  if (request.options) {
    ESS_RETURN_IF_ERROR(source_.DeviceOf(*request.options).status());
    entry.options = *request.options;
  }
  if (request.alias.empty() || request.alias == request.name) return entry;
  entry.name = request.alias;
  ESS_RETURN_IF_ERROR(catalogue_.Add(entry));
  // An alias that is there has options of its own.
  return request.options ? entry : EntryOf(request.alias);
}

void ModelResidency::WhenLoaded(const LoadRequest& request,
                                std::shared_ptr<const CancellationToken> cancellation,
                                std::function<void(absl::StatusOr<ModelStatus>)> done) {
  const absl::StatusOr<CatalogueEntry> entry = EntryToLoad(request);
  if (!entry.ok()) return done(entry.status());
  residents_.WhenReady(
      {.entry = *entry,
       .explicit_load = true,
       .must_match = request.options.has_value(),
       .reload = request.reload,
       .cancellation = std::move(cancellation)},
      [this, entry = *entry, remember = request.options.has_value(),
       done = std::move(done)](const absl::StatusOr<ResidentModels::Lease>& lease) {
        if (!lease.ok()) return done(lease.status());
        if (remember) {
          absl::MutexLock lock(&mutex_);
          requested_options_[entry.name] = entry.options;
          catalogue_.RememberOptions(entry.name, entry.options);
        }
        done(StatusOf(entry));
      });
}

absl::StatusOr<ModelStatus> ModelResidency::Load(const LoadRequest& request,
                                                 const CancellationToken& cancellation) {
  absl::Notification ended;
  absl::StatusOr<ModelStatus> status;
  // Outlives the load's last look at it, which is before `done`.
  const std::shared_ptr<const CancellationToken> borrowed(std::shared_ptr<void>(), &cancellation);
  WhenLoaded(request, borrowed, [&](absl::StatusOr<ModelStatus> result) {
    status = std::move(result);
    ended.Notify();
  });
  ended.WaitForNotification();
  return status;
}

void ModelResidency::WhenUnloaded(const std::string& name,
                                  std::shared_ptr<const CancellationToken> cancellation,
                                  std::function<void(absl::StatusOr<int64_t>)> done) {
  if (const auto found = catalogue_.Find(name); !found.ok()) return done(found.status());
  residents_.Unload(name, std::move(cancellation),
                    [this, name, done = std::move(done)](const absl::StatusOr<int64_t>& bytes) {
                      if (bytes.ok()) {
                        absl::MutexLock lock(&mutex_);
                        requested_options_.erase(name);
                      }
                      done(bytes);
                    });
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
