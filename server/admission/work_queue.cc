#include "server/admission/work_queue.h"

#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"

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

absl::Status WorkQueue::Submit(std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (static_cast<int>(queue_.size()) >= options_.max_queued) {
    return absl::ResourceExhaustedError(fmt::format("{} calls are waiting; the limit is {} ({})",
                                                    queue_.size(), options_.max_queued,
                                                    options_.limit_name));
  }
  queue_.push_back(std::move(work));
  return absl::OkStatus();
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
