// A bounded queue of calls and the threads that run them. Torch-free.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ess::admission {

// Thread-safe.
class WorkQueue {
 public:
  struct Options {
    int threads = 1;         // Pieces of work that run at the same time; >= 1.
    int max_queued = 64;     // Waiting pieces; one more is refused.
    std::string limit_name;  // Configuration field of max_queued, for the message.
  };

  explicit WorkQueue(const Options& options);
  // Runs what is queued, then ends.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Runs `work` on one of the threads, in the order of submission. When OK is returned, `work` is
  // called exactly once; otherwise never.
  // Errors: kResourceExhausted  the queue is full.
  //         kUnavailable        after Drain.
  absl::Status Submit(std::function<void()> work);

  // Refuses new work and waits until none is queued or running, at most for `limit`. Returns
  // whether all work has ended. May be called again.
  bool Drain(absl::Duration limit);

 private:
  void Work();

  const Options options_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ess::admission
