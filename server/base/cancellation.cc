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

}  // namespace ess
