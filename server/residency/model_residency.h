// The models of the catalogue, in memory when they are asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/base/cancellation.h"
#include "server/base/wait_aside.h"
#include "server/models/sequence_model.h"
#include "server/residency/folder_source.h"
#include "server/residency/model_catalogue.h"
#include "server/residency/resident_models.h"
#include "server/telemetry/metrics.h"
#include "server/tokenization/tokenizer.h"

namespace ess::residency {

// What outsiders see of a model.
struct ModelStatus {
  std::string name;
  ModelState state = ModelState::kCold;
  std::string reason;        // Why it is in this state.
  std::string architecture;  // Empty when config.json cannot be read.
  ModelOptions options;
  // Null unless the weights are in memory: kReady, or kUnloading with a lease.
  std::shared_ptr<const models::ModelDescription> description;
  std::string weight_digest;
  bool has_tokenizer = false;
};

// Keeps a model in memory. Give it back soon, and wait for nothing meanwhile that waits for memory
// in its turn (resident_models.h). Move-only.
class ModelLease {
 public:
  const std::string& name() const { return lease_.name(); }
  const models::SequenceModel& model() const { return *weights().model().loaded.model; }
  // Null when the model has no tokenizer.
  const tokenization::Tokenizer* tokenizer() const {
    return weights().model().loaded.tokenizer.get();
  }

 private:
  friend class ModelResidency;
  explicit ModelLease(ResidentModels::Lease lease) : lease_(std::move(lease)) {}
  const ModelWeights& weights() const { return static_cast<const ModelWeights&>(lease_.weights()); }

  ResidentModels::Lease lease_;
};

// Room for the work of a request, until it is destroyed. Move-only.
using WorkReservation = ResidentModels::Reservation;

// Thread-safe. ResidentModels is the state machine behind it; this knows names, options and
// folders.
class ModelResidency {
 public:
  struct Options {
    FolderSource::Options source;
    ResidentModels::Options residents;
  };

  // `catalogue` and `metrics` outlive this.
  ModelResidency(ModelCatalogue& catalogue, telemetry::Metrics& metrics, Options options);

  // Calls `done` exactly once: here and at once when the model is in memory, unknown or has failed
  // before; else from a thread of the residency, which it must not block, when its load has ended
  // or within 20 ms of the token's cancellation or deadline. Loads never run on the caller's
  // thread.
  // Errors: kNotFound; kFailedPrecondition  its load failed, now or before, and the reason is in
  //         the message, or an option this server does not have; kCancelled, kDeadlineExceeded
  //         while waiting; kUnavailable  the process ends.
  void WhenReady(const std::string& name, std::shared_ptr<const CancellationToken> cancellation,
                 std::function<void(absl::StatusOr<ModelLease>)> done);

  // The same for the calling thread, which waits aside if it has to.
  absl::StatusOr<ModelLease> Acquire(const std::string& name, const CancellationToken& cancellation,
                                     WaitAside aside = WaitHere);

  // Room for `bytes` beside the weights, in the budget of the lease's device. Evicts models that
  // nobody uses, else waits aside.
  // Errors: kInvalidArgument  it could never fit beside its own model; names needed and limit.
  //         kAborted          it was in the way of others that waited too. Give the lease back,
  //                           acquire the model again, and then reserve again.
  //         kCancelled, kDeadlineExceeded  while waiting.
  absl::StatusOr<WorkReservation> ReserveWork(const ModelLease& lease, int64_t bytes,
                                              const CancellationToken& cancellation,
                                              WaitAside aside = WaitHere);

  struct LoadRequest {
    std::string name;
    std::string alias;  // Served under this name, unless empty.
    // They hold until the model is unloaded by request; an alias is then loaded again as it was
    // loaded last, another name as the catalogue says. Absent: those that hold.
    std::optional<ModelOptions> options;
    // Loads a model that is in memory again, beside the old weights where both fit, and puts it in
    // their place; leases of the old ones go on. A load that fails leaves the old ones serving,
    // unless they had to go first to make room.
    bool reload = false;
  };

  // Loads a model; a failed one is tried again. Calls `done` as WhenReady does.
  // Errors: those of models::LoadModelFolder, of ModelCatalogue::Add and of ResolveDevice;
  //         kNotFound; kAlreadyExists  loaded with other options; kResourceExhausted  the model can
  //         never fit into the budget: names needed and limit.
  void WhenLoaded(const LoadRequest& request, std::shared_ptr<const CancellationToken> cancellation,
                  std::function<void(absl::StatusOr<ModelStatus>)> done);

  // The same, blocking.
  absl::StatusOr<ModelStatus> Load(const LoadRequest& request,
                                   const CancellationToken& cancellation);

  // Takes the model out of memory, the host's too, when its last lease is given back. Calls `done`
  // as WhenReady does, with the bytes of its weights; 0 when it was not loaded.
  // Errors: kNotFound; kCancelled, kDeadlineExceeded  while waiting for leases; kUnavailable.
  void WhenUnloaded(const std::string& name, std::shared_ptr<const CancellationToken> cancellation,
                    std::function<void(absl::StatusOr<int64_t>)> done);

  // Whether work that uses the model should give it and its memory back soon, if that costs little:
  // see ResidentModels::IsNeededElsewhere.
  bool IsNeededElsewhere(const std::string& name) const {
    return residents_.IsNeededElsewhere(name);
  }

  // Answers all who wait with kUnavailable, and calls nobody back afterwards.
  void Stop() { residents_.Stop(); }

  absl::StatusOr<ModelStatus> Get(const std::string& name) const;
  std::vector<ModelStatus> List() const;
  // Of the weights of this lease, which a reload may have replaced since.
  ModelStatus Describe(const ModelLease& lease) const;

 private:
  // The entry of the catalogue, with the options that the model was last loaded with by request.
  absl::StatusOr<CatalogueEntry> EntryOf(const std::string& name) const;
  ModelStatus StatusOf(const CatalogueEntry& entry) const;
  // What a load does first, before anything is changed: its entry, or why there is none.
  absl::StatusOr<CatalogueEntry> EntryToLoad(const LoadRequest& request);

  ModelCatalogue& catalogue_;
  mutable absl::Mutex mutex_;
  // By name, until it is unloaded by request: an evicted model comes back as it was.
  std::map<std::string, ModelOptions> requested_options_ ABSL_GUARDED_BY(mutex_);
  FolderSource source_;
  ResidentModels residents_;  // The first to end: its threads answer.
};

}  // namespace ess::residency
