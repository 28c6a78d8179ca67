// A flag and a deadline that long work looks at between its steps.
#pragma once

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ess {

// Thread-safe. Shared by the caller, who cancels, and the work, which checks.
class CancellationToken {
 public:
  explicit CancellationToken(absl::Time deadline = absl::InfiniteFuture()) : deadline_(deadline) {}
  CancellationToken(const CancellationToken&) = delete;
  CancellationToken& operator=(const CancellationToken&) = delete;

  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  absl::Time deadline() const { return deadline_; }

  // OK; or kCancelled after Cancel(); or kDeadlineExceeded after the deadline. Costs a clock read.
  absl::Status Check() const;

 private:
  std::atomic<bool> cancelled_{false};
  const absl::Time deadline_;
};

// Waits until `condition` holds and looks at `cancellation` every 20 ms meanwhile. OK once it
// holds; else the token's status, with the mutex held either way.
absl::Status AwaitOrCancel(absl::Mutex& mutex, const absl::Condition& condition,
                           const CancellationToken& cancellation)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

}  // namespace ess
