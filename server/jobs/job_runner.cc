#include "server/jobs/job_runner.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "server/base/device_failure.h"
#include "server/base/fault_point.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/jobs/posix_file.h"

namespace ess::jobs {
namespace {

constexpr char kCaller[] = "jobs";  // In the queue.
constexpr int64_t kMaxFailedStarts = 5;
constexpr int kMaxAttempts = 5;
constexpr absl::Duration kIdleWait = absl::Milliseconds(500);
constexpr auto kFirstRetry = std::chrono::milliseconds(500);
constexpr auto kGaveWay = std::chrono::milliseconds(50);

// Work in a slot of the queue, and the thread that waits for it.
struct SlotWork {
  absl::Mutex mutex;
  std::optional<absl::Status> status ABSL_GUARDED_BY(mutex);
  bool model_known ABSL_GUARDED_BY(mutex) = false;  // Nobody calls back any more.

  void Finish(const absl::Status& with) {
    absl::MutexLock lock(&mutex);
    if (!status) status = with;
  }
};

// Whether a job, as the store has it, was cancelled, deleted or has ended otherwise.
bool IsOver(const absl::StatusOr<Job>& job) {
  return absl::IsNotFound(job.status()) || (job.ok() && HasEnded(job->state));
}

}  // namespace

JobRunner::JobRunner(const RunServices& services, admission::RequestQueue& queue,
                     const residency::ModelCatalogue& catalogue, Decoder decoder)
    : services_(services), queue_(queue), catalogue_(catalogue), decoder_(std::move(decoder)) {
  services_.jobs.SetWaker([this] { Wake(); });
  thread_ = std::thread([this] { RunThread(); });
}

JobRunner::~JobRunner() {
  services_.jobs.SetWaker(nullptr);
  Stop();
  thread_.join();
}

void JobRunner::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  if (token_ != nullptr) token_->Cancel();
}

void JobRunner::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

bool JobRunner::stopping() {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

void JobRunner::RunThread() {
  while (!stopping()) {
    if (const std::optional<Job> job = Choose()) {
      RunStep(*job);
      continue;
    }
    DropEnded();
    absl::MutexLock lock(&mutex_);
    auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return woken_ || stopping_; };
    mutex_.AwaitWithTimeout(absl::Condition(&wake), kIdleWait);
    woken_ = false;
  }
}

std::optional<Job> JobRunner::Choose() {
  const absl::StatusOr<std::vector<Job>> jobs = services_.jobs.store().Unfinished();
  if (!jobs.ok()) {
    ESS_LOG(warn, "jobs: {}", std::string(jobs.status().message()));
    return std::nullopt;
  }
  const Clock::time_point now = Clock::now();
  const Job* best = nullptr;
  const auto rank = [this](const Job& job) {
    const auto served = served_.find(job.owner);
    return std::tuple(-static_cast<int>(job.priority), served == served_.end() ? 0 : served->second,
                      job.sequence);
  };
  for (const Job& job : *jobs) {
    const auto retry = retries_.find(job.id);
    if (retry != retries_.end() && retry->second.not_before > now) continue;
    if (best == nullptr || rank(job) < rank(*best)) best = &job;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

void JobRunner::DropEnded() {
  if (run_ == nullptr) return;
  const std::string id = run_->job().id;
  if (!IsOver(services_.jobs.store().Get(id))) return;
  run_.reset();
  retries_.erase(id);
}

void JobRunner::RunStep(const Job& job) {
  served_[job.owner] = ++steps_;
  if (run_ != nullptr && run_->job().id != job.id) {
    Requeue();
    run_.reset();
  }
  const auto token = std::make_shared<CancellationToken>();
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    token_ = token;
  }
  services_.jobs.SetCurrent(job.id, token);
  const Clock::time_point begin = Clock::now();
  const absl::Status status = CatchTorch("job", [&] { return OpenAndStep(job, token); });
  if (run_ != nullptr) {
    run_->AddRunTime(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  if (status.ok()) {
    retries_.erase(job.id);
  } else if (const auto now = services_.jobs.store().Get(job.id); IsOver(now)) {
    run_.reset();  // Cancelled or deleted.
    retries_.erase(job.id);
  } else if (run_ == nullptr) {  // It cannot be opened.
    Retry& retry = retries_[job.id];
    retry.not_before = Clock::now() + kFirstRetry;
    if (now.ok() && (!absl::IsUnavailable(status) || ++retry.attempts >= kMaxAttempts)) {
      const absl::Status failed = services_.jobs.Fail(*now, status);
      if (failed.ok()) retries_.erase(job.id);
    }
  } else {
    HandleError(status);
  }
  if (run_ != nullptr && stopping()) Requeue();
  services_.jobs.ClearCurrent();
  absl::MutexLock lock(&mutex_);
  token_.reset();
}

absl::Status JobRunner::OpenAndStep(const Job& job,
                                    const std::shared_ptr<CancellationToken>& token) {
  if (run_ == nullptr) {
    if (job.failed_starts >= kMaxFailedStarts) {
      return absl::InternalError(fmt::format(
          "the server has ended {} times while this job ran, at the same place: the job may be "
          "what ends it",
          job.failed_starts));
    }
    ESS_ASSIGN_OR_RETURN(const Job whole, services_.jobs.store().Get(job.id));
    ESS_ASSIGN_OR_RETURN(ProfileJob specification, decoder_(whole.specification));
    ESS_ASSIGN_OR_RETURN(run_, JobRun::Open(services_, whole, std::move(specification)));
  }
  if (run_->job().state != JobState::kRunning) {
    run_->job().state = JobState::kRunning;
    if (run_->job().started_at == 0) run_->job().started_at = UnixSeconds();
    ESS_RETURN_IF_ERROR(services_.jobs.Save(run_->job()));
    ESS_FAULT_POINT("job_started");
  }
  if (!run_->IsComputed()) {
    return InSlot(token, [this, token](admission::RequestQueue::Slot& slot) {
      return run_->Step({.slot = slot, .cancellation = *token});
    });
  }
  ESS_RETURN_IF_ERROR(run_->Finish(*token));
  run_.reset();
  return absl::OkStatus();
}

absl::Status JobRunner::InSlot(const std::shared_ptr<CancellationToken>& token,
                               std::function<absl::Status(admission::RequestQueue::Slot&)> work) {
  const auto state = std::make_shared<SlotWork>();
  const ProfileJob& job = run_->specification();
  ESS_ASSIGN_OR_RETURN(
      const admission::RequestQueue::Id place,
      queue_.Enter({.model = catalogue_.Find(job.model).ok() ? job.model : "",
                    .caller = kCaller,
                    .priority = admission::Priority::kLow,
                    .tokens = run_->NextTokens(),
                    .background = true},
                   [state](const absl::Status& status) { state->Finish(status); }));
  services_.pipeline.WhenReady(
      job, token, [this, state, place, work = std::move(work)](const absl::Status& ready) {
        if (!ready.ok()) {
          if (queue_.Leave(place)) state->Finish(ready);
        } else {
          queue_.Start(place, admission::Weight::kLarge,
                       [state, work](admission::RequestQueue::Slot& slot) {
                         state->Finish(CatchTorch("job", [&] { return work(slot); }));
                       });
        }
        absl::MutexLock lock(&state->mutex);
        state->model_known = true;
      });
  absl::MutexLock lock(&state->mutex);
  auto ended = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex) {
    return state->status.has_value();
  };
  const absl::Status waited = AwaitOrCancel(state->mutex, absl::Condition(&ended), *token);
  if (!waited.ok()) {
    state->mutex.Unlock();
    if (queue_.Leave(place)) state->Finish(waited);
    state->mutex.Lock();
    state->mutex.Await(absl::Condition(&ended));  // What runs sees the token.
  }
  if (!state->model_known) token->Cancel();
  state->mutex.Await(absl::Condition(&state->model_known));
  return *state->status;
}

void JobRunner::HandleError(const absl::Status& error) {
  if (stopping() || DeviceFailure()) {
    Requeue();
    Stop();
    return;
  }
  Retry& retry = retries_[run_->job().id];
  if (absl::IsAborted(error)) {
    retry.not_before = Clock::now() + kGaveWay;
    return;
  }
  const bool may_pass =
      (absl::IsResourceExhausted(error) && !IsDiskFull(error)) || absl::IsUnavailable(error);
  if (!may_pass || ++retry.attempts >= kMaxAttempts) {
    FailJob(error);
    return;
  }
  const auto wait = kFirstRetry * (1 << retry.attempts);
  retry.not_before = Clock::now() + wait;
  ESS_LOG(warn, "job {} tries again in {} ms: {}", run_->job().id,
          std::chrono::milliseconds(wait).count(), std::string(error.message()));
}

void JobRunner::Requeue() {
  if (run_->job().state != JobState::kRunning) return;
  run_->job().state = JobState::kQueued;
  run_->job().seconds_left.reset();
  if (const absl::Status saved = services_.jobs.Save(run_->job()); !saved.ok()) {
    ESS_LOG(warn, "job {}: {}", run_->job().id, std::string(saved.message()));
  }
}

// Tries for as long as the database cannot be written: without it nothing goes on anyway.
void JobRunner::FailJob(const absl::Status& error) {
  const Job job = run_->job();
  run_.reset();  // Closes its files, so that their space is free.
  retries_.erase(job.id);
  while (true) {
    const absl::Status failed = services_.jobs.Fail(job, error);
    if (failed.ok() || absl::IsNotFound(failed) || absl::IsFailedPrecondition(failed)) return;
    ESS_LOG(error, "job {} has failed, which cannot be written down: {}", job.id,
            std::string(failed.message()));
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Seconds(1))) return;
  }
}

}  // namespace ess::jobs
