#include "server/base/cancellation.h"

#include "absl/time/clock.h"

namespace ess {

absl::Status CancellationToken::Check() const {
  // First: gRPC cancels a call when its deadline passes, and the deadline is the reason.
  if (deadline_ != absl::InfiniteFuture() && absl::Now() > deadline_) {
    return absl::DeadlineExceededError("the deadline of the call has passed");
  }
  if (cancelled_.load(std::memory_order_relaxed)) {
    return absl::CancelledError("cancelled by the caller");
  }
  return absl::OkStatus();
}

absl::Status AwaitOrCancel(absl::Mutex& mutex, const absl::Condition& condition,
                           const CancellationToken& cancellation) {
  while (!mutex.AwaitWithTimeout(condition, absl::Milliseconds(20))) {
    const absl::Status status = cancellation.Check();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace ess
