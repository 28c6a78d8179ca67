// The calls that are open, for a drain to wait for, and to end.
#pragma once

#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/cancellation.h"

namespace ess::rpc {

// Thread-safe. A call is open until gRPC has taken its status, after the last byte of its answer.
class OpenCalls {
 public:
  // `token` is the call's, until it is closed.
  void Opened(CancellationToken& token);
  void Closed(CancellationToken& token);

  // Waits until no call is open, at most for `limit`. Returns how many still are.
  size_t AwaitNone(absl::Duration limit);

  // Cancels the calls that are open, and those to come.
  void CancelAll();

  // The status of a call whose work ended with `status`: kUnavailable in place of kCancelled once
  // the server, and not the caller, cancels.
  absl::Status StatusOf(const absl::Status& status);

  // Cancels the work of a call that is gone. Why it is: its deadline has passed, the server ends,
  // or the caller left.
  absl::Status Cancel(CancellationToken& token);

 private:
  absl::Mutex mutex_;
  std::set<CancellationToken*> tokens_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ess::rpc
