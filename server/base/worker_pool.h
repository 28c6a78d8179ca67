// Threads that share out the heads of a layer.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/base/cancellation.h"

namespace ess {

// Thread-safe; loops of several callers run one after the other, in no promised order. A pool of
// one thread has none of its own: each loop runs on its caller's thread, beside the others.
class WorkerPool {
 public:
  // `threads` >= 1, the caller's thread included.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(index, thread) once for each index in [0, count), on all threads, the caller's
  // included; `thread` is in [0, threads()), for per-thread scratch. Indices are taken in order.
  // Returns when all calls have returned. `body` must not throw, and must not start another loop.
  // Errors: kCancelled, kDeadlineExceeded  while waiting for the loop of another caller; `body` was
  //         not called. A loop that has started ends by itself: `body` looks at the token.
  absl::Status ParallelFor(int64_t count, absl::FunctionRef<void(int64_t index, int thread)> body,
                           const CancellationToken& cancellation);

 private:
  void Work(int thread);
  void RunIndices(int thread);
  // Waits until no loop runs, and starts one.
  absl::Status BeginLoop(int64_t count, const absl::FunctionRef<void(int64_t, int)>& body,
                         const CancellationToken& cancellation);

  absl::Mutex mutex_;
  bool looping_ ABSL_GUARDED_BY(mutex_) = false;
  // State of the current loop.
  int64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  int busy_workers_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Constant while a loop runs.
  const absl::FunctionRef<void(int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};

  std::vector<std::thread> workers_;
};

}  // namespace ess
