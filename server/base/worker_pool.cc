#include "server/base/worker_pool.h"

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess {

WorkerPool::WorkerPool(int threads) {
  ESS_CHECK(threads >= 1);
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { Work(thread); });
  }
}

WorkerPool::~WorkerPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& worker : workers_) worker.join();
}

absl::Status WorkerPool::BeginLoop(int64_t count, const absl::FunctionRef<void(int64_t, int)>& body,
                                   const CancellationToken& cancellation) {
  auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !looping_; };
  absl::MutexLock lock(&mutex_);
  ESS_RETURN_IF_ERROR(AwaitOrCancel(mutex_, absl::Condition(&idle), cancellation));
  looping_ = true;
  body_ = &body;
  count_ = count;
  next_.store(0);
  busy_workers_ = static_cast<int>(workers_.size());
  ++generation_;
  return absl::OkStatus();
}

absl::Status WorkerPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t, int)> body,
                                     const CancellationToken& cancellation) {
  if (workers_.empty()) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    for (int64_t index = 0; index < count; ++index) body(index, 0);
    return absl::OkStatus();
  }
  ESS_RETURN_IF_ERROR(BeginLoop(count, body, cancellation));
  RunIndices(0);
  absl::MutexLock lock(&mutex_);
  auto done = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return busy_workers_ == 0; };
  mutex_.Await(absl::Condition(&done));
  body_ = nullptr;
  looping_ = false;
  return absl::OkStatus();
}

void WorkerPool::Work(int thread) {
  int64_t seen = 0;
  auto wake = [this, &seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || generation_ != seen;
  };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (stopping_) return;
      seen = generation_;
    }
    RunIndices(thread);
    absl::MutexLock lock(&mutex_);
    --busy_workers_;
  }
}

void WorkerPool::RunIndices(int thread) {
  for (int64_t index = next_.fetch_add(1); index < count_; index = next_.fetch_add(1)) {
    (*body_)(index, thread);
  }
}

}  // namespace ess
