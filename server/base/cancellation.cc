#include "server/base/cancellation.h"

#include "absl/time/clock.h"

namespace ess {

absl::Status CancellationToken::Check() const {
  if (cancelled_.load(std::memory_order_relaxed)) {
    return absl::CancelledError("cancelled by the caller");
  }
  if (deadline_ != absl::InfiniteFuture() && absl::Now() > deadline_) {
    return absl::DeadlineExceededError("the deadline of the call has passed");
  }
  return absl::OkStatus();
}

}  // namespace ess
