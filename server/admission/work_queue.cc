#include "server/admission/work_queue.h"

#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::admission {

WorkQueue::WorkQueue(const Options& options) : options_(options) {
  ESS_CHECK(options.threads >= 1);
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

WorkQueue::~WorkQueue() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<WorkQueue::Place> WorkQueue::TakePlace() {
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (const int taken = places_->load(); taken >= options_.max_queued) {
    return absl::ResourceExhaustedError(fmt::format("{} calls are waiting; the limit is {} ({})",
                                                    taken, options_.max_queued,
                                                    options_.limit_name));
  }
  ++*places_;
  return Place(nullptr, [places = places_](void*) { --*places; });
}

absl::Status WorkQueue::Submit(std::function<void()> work) {
  return SubmitWithPlace([work = std::move(work)](Place place) {
    place.reset();  // What runs does not wait.
    work();
  });
}

absl::Status WorkQueue::SubmitWithPlace(std::function<void(Place place)> work) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Place taken, TakePlace());
  queue_.push_back(
      [work = std::move(work), place = std::move(taken)]() mutable { work(std::move(place)); });
  return absl::OkStatus();
}

void WorkQueue::Continue(std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  queue_.push_back(std::move(work));
}

bool WorkQueue::Drain(absl::Duration limit) {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  auto idle = [this]()
                  ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return queue_.empty() && running_ == 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), limit);
}

void WorkQueue::Work() {
  auto wake = [this]()
                  ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !queue_.empty(); };
  while (true) {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
      ++running_;
    }
    work();
    work = nullptr;  // What it holds goes before the queue counts as idle.
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace ess::admission
