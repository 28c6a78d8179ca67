#include "server/rpc/open_calls.h"

namespace ess::rpc {

void OpenCalls::Opened(CancellationToken& token) {
  absl::MutexLock lock(&mutex_);
  tokens_.insert(&token);
  if (cancelled_) token.Cancel();
}

void OpenCalls::Closed(CancellationToken& token) {
  absl::MutexLock lock(&mutex_);
  tokens_.erase(&token);
}

size_t OpenCalls::AwaitNone(absl::Duration limit) {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return tokens_.empty(); };
  mutex_.AwaitWithTimeout(absl::Condition(&none), limit);
  return tokens_.size();
}

void OpenCalls::CancelAll() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (CancellationToken* const token : tokens_) token->Cancel();
}

absl::Status OpenCalls::StatusOf(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_ || status.code() != absl::StatusCode::kCancelled) return status;
  return absl::UnavailableError("the server is shutting down");
}

absl::Status OpenCalls::Cancel(CancellationToken& token) {
  const absl::Status deadline = token.Check();
  token.Cancel();
  return StatusOf(deadline.ok() ? absl::CancelledError("cancelled by the caller") : deadline);
}

}  // namespace ess::rpc
