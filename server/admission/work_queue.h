// A bounded queue of calls and the threads that run them. Torch-free.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
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

  // The same for work that goes on after it has returned: it counts as waiting until the last copy
  // of its place is gone. A place may outlive the queue.
  using Place = std::shared_ptr<void>;
  absl::Status SubmitWithPlace(std::function<void(Place place)> work);

  // More work of somebody who has a place: never refused.
  void Continue(std::function<void()> work);

  // Refuses new work and waits until none is queued or running, at most for `limit`. Returns
  // whether all work has ended. May be called again.
  bool Drain(absl::Duration limit);

 private:
  // Takes a place, or says why there is none.
  absl::StatusOr<Place> TakePlace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Work();

  const Options options_;
  const std::shared_ptr<std::atomic<int>> places_ = std::make_shared<std::atomic<int>>(0);
  absl::Mutex mutex_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ess::admission
