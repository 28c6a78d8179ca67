#include "server/rpc/call_alarm.h"

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ess::rpc {

struct CallAlarm::Target {
  absl::Mutex mutex;
  grpc::CallbackServerContext* call ABSL_GUARDED_BY(mutex) = nullptr;  // Null: it is over.
};

CallAlarm::CallAlarm(grpc::CallbackServerContext& call, absl::Time deadline) {
  if (deadline >= absl::FromChrono(call.deadline())) return;
  target_ = std::make_shared<Target>();
  target_->call = &call;
  alarm_.Set(absl::ToChronoTime(deadline), [target = target_](bool reached) {
    if (!reached) return;
    absl::MutexLock lock(&target->mutex);
    if (target->call != nullptr) target->call->TryCancel();
  });
}

void CallAlarm::Stop() {
  if (target_ == nullptr) return;
  absl::MutexLock lock(&target_->mutex);
  target_->call = nullptr;
}

}  // namespace ess::rpc
