#include "server/residency/resident_models.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/byte_text.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::residency {
namespace {

constexpr size_t kMaxNamesInReason = 3;

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

ResidentModels::Lease::Lease(Lease&& other) noexcept
    : models_(other.models_), resident_(std::move(other.resident_)) {}

ResidentModels::Lease& ResidentModels::Lease::operator=(Lease&& other) noexcept {
  std::swap(models_, other.models_);
  std::swap(resident_, other.resident_);
  return *this;
}

ResidentModels::Lease::~Lease() {
  if (resident_ != nullptr) models_->Release(*resident_);
}

const std::string& ResidentModels::Lease::name() const { return resident_->name; }
const Weights& ResidentModels::Lease::weights() const { return *resident_->weights; }
const ModelOptions& ResidentModels::Lease::options() const { return resident_->options; }

ResidentModels::Reservation::Reservation(Reservation&& other) noexcept
    : models_(other.models_),
      pool_(other.pool_),
      resident_(std::move(other.resident_)),
      bytes_(other.bytes_) {}

ResidentModels::Reservation::~Reservation() {
  if (resident_ != nullptr) models_->ReleaseWork(*pool_, *resident_, bytes_);
}

void ResidentModels::Release(Resident& resident) {
  absl::MutexLock lock(&mutex_);
  if (--resident.leases == 0) Advance();
}

void ResidentModels::ReleaseWork(Pool& pool, Resident& resident, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  pool.used -= bytes;
  resident.work_bytes -= bytes;
  --pool.working;
  Advance();
}

ResidentModels::Lease ResidentModels::MakeLease(const std::shared_ptr<Resident>& resident) {
  ++resident->leases;
  resident->last_use = ++uses_;
  metrics_.model_last_used.Set({resident->name},
                               absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  return Lease(*this, resident);
}

absl::StatusOr<ResidentModels::Lease> ResidentModels::LeaseFor(const Request& request,
                                                               const Slot& slot) {
  if (request.must_match && slot.resident->options != request.entry.options) {
    return absl::AlreadyExistsError(
        fmt::format("options: model '{}' is loaded with other options; unload it first, or reload",
                    request.entry.name));
  }
  return MakeLease(slot.resident);
}

void ResidentModels::WhenReady(Request request, Done done) {
  absl::StatusOr<Lease> answer = absl::UnavailableError("the server is shutting down");
  {
    absl::MutexLock lock(&mutex_);
    Slot& slot = slots_[request.entry.name];
    const bool failed = !slot.failure.ok();
    if (stopping_) {
      // Answered below.
    } else if (Serves(slot) && !request.reload) {
      answer = LeaseFor(request, slot);
    } else if (failed && !request.explicit_load && !request.reload) {
      answer = absl::FailedPreconditionError(fmt::format("model '{}' could not be loaded: {}",
                                                         request.entry.name,
                                                         std::string(slot.failure.message())));
    } else {
      slot.failure = absl::OkStatus();
      const bool joins = slot.load != nullptr && slot.load->phase == Phase::kQueued;
      slot.waiters.push_back({std::move(request), std::move(done), joins});
      Advance();
      return;
    }
  }
  done(std::move(answer));
}

void ResidentModels::Answer(Done done, absl::StatusOr<Lease> result) {
  answers_.push_back(
      [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

void ResidentModels::Answer(const PendingUnload& unload, const absl::Status& why) {
  answers_.push_back([done = unload.done, why] { done(why); });
}

void ResidentModels::Unload(const std::string& name,
                            std::shared_ptr<const CancellationToken> cancellation,
                            std::function<void(absl::StatusOr<int64_t>)> done) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) {
      slots_[name].unloads.push_back(
          {.cancellation = std::move(cancellation), .done = std::move(done)});
      Advance();
      return;
    }
  }
  done(absl::UnavailableError("the server is shutting down"));
}

absl::StatusOr<ResidentModels::Reservation> ResidentModels::ReserveWork(
    const Lease& lease, int64_t bytes, const CancellationToken& cancellation, WaitAside aside) {
  Resident& resident = *lease.resident_;
  Pool& pool = *resident.pool;
  WaitingWork work{.resident = &resident, .bytes = bytes};
  bool decided = false;
  {
    absl::MutexLock lock(&mutex_);
    if (bytes > pool.limit - resident.bytes) {
      return absl::InvalidArgumentError(fmt::format(
          "the request needs up to {} bytes of memory beside model '{}'; the limit is {} "
          "(device_memory_budget_bytes {} less its weights); send fewer or shorter prompts",
          bytes, resident.name, pool.limit - resident.bytes, pool.limit));
    }
    pool.works.push_back(&work);
    Advance();
    decided = work.granted || work.aborted;
  }
  const auto wait = [&] {
    const auto is_decided = [&work] { return work.granted || work.aborted; };
    absl::MutexLock lock(&mutex_);
    const absl::Status status = AwaitOrCancel(mutex_, absl::Condition(&is_decided), cancellation);
    if (is_decided()) return absl::OkStatus();
    pool.works.remove(&work);
    Advance();
    return status;
  };
  const absl::Status waited = decided ? absl::OkStatus() : aside(wait);
  if (work.granted) {
    Reservation reservation(*this, pool, lease.resident_, bytes);
    ESS_RETURN_IF_ERROR(waited);
    return reservation;
  }
  ESS_RETURN_IF_ERROR(waited);
  return absl::AbortedError(
      fmt::format("model '{}': no room for {} of work; it is held by requests that wait for room "
                  "too",
                  resident.name, ByteText(bytes)));
}

bool ResidentModels::Serves(const Slot& slot) {
  return slot.resident != nullptr && slot.resident->leaving == Leaving::kNo &&
         !slot.resident->freeing;
}

ModelState ResidentModels::StateOf(const Slot& slot) {
  if (Serves(slot)) return ModelState::kReady;
  if (slot.resident != nullptr) return ModelState::kUnloading;
  if (slot.load != nullptr) return ModelState::kLoading;
  return slot.failure.ok() ? ModelState::kCold : ModelState::kFailed;
}

std::string ResidentModels::WaitReason(const PendingLoad& load) const {
  switch (load.phase) {
    case Phase::kQueued:
    case Phase::kGranted:
      return "waits for other loads";
    case Phase::kMeasuring:
      return "reads how large it is";
    case Phase::kLoading:
      return "reads its weights";
    case Phase::kWaiting:
      break;
  }
  std::string reason =
      fmt::format("waits for {} on {}", ByteText(load.needs.bytes), load.pool->device);
  if (load.pool->loads.front() != load.entry.name) {
    return fmt::format("{}; '{}' is before it", reason, load.pool->loads.front());
  }
  std::vector<std::string> used;
  for (const auto& resident : load.pool->residents) {
    if (resident->leases > 0) used.push_back(fmt::format("'{}'", resident->name));
  }
  const size_t total = used.size();
  if (total > kMaxNamesInReason) used.resize(kMaxNamesInReason);
  if (total == 0) return reason;
  return fmt::format("{}; {}{} {} in use", reason, fmt::join(used, ", "),
                     total > used.size() ? ", ..." : "", total == 1 ? "is" : "are");
}

std::string ResidentModels::ReasonOf(const Slot& slot) const {
  if (slot.resident != nullptr && !Serves(slot)) {
    const int leases = slot.resident->leases;
    if (leases == 0) return slot.resident->note;
    return fmt::format("{}: waits for {} request{}", slot.resident->note, leases,
                       leases == 1 ? "" : "s");
  }
  if (slot.resident != nullptr && slot.load != nullptr) {
    return fmt::format("serves until it is replaced: {}", WaitReason(*slot.load));
  }
  if (slot.load != nullptr) return WaitReason(*slot.load);
  if (!slot.failure.ok()) {
    return fmt::format("load failed: {}: {}", absl::StatusCodeToString(slot.failure.code()),
                       std::string(slot.failure.message()));
  }
  return slot.note;
}

ResidentModels::Status ResidentModels::Get(const std::string& name,
                                           absl::FunctionRef<void(const Weights&)> inspect) const {
  absl::MutexLock lock(&mutex_);
  const auto found = slots_.find(name);
  if (found == slots_.end()) return {};
  const Slot& slot = found->second;
  Status status{.state = StateOf(slot), .reason = ReasonOf(slot)};
  if (slot.resident != nullptr && slot.resident->weights != nullptr) {
    status.options = slot.resident->options;
    inspect(*slot.resident->weights);
  }
  return status;
}

bool ResidentModels::IsNeededElsewhere(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = slots_.find(name);
  if (found == slots_.end() || found->second.resident == nullptr) return false;
  if (!Serves(found->second)) return true;
  const auto& works = found->second.resident->pool->works;
  const absl::Time long_ago = absl::Now() - options_.eviction_patience;
  return std::any_of(works.begin(), works.end(),
                     [long_ago](const WaitingWork* work) { return work->since <= long_ago; });
}

int64_t ResidentModels::UsedBytes(const std::string& device) const {
  absl::MutexLock lock(&mutex_);
  const auto found = pools_.find(device);
  return found == pools_.end() ? 0 : found->second.used;
}

}  // namespace ess::residency
