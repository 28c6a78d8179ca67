// The writes of a stream: one in flight, and the answers that wait behind it for a slow reader.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "fmt/format.h"
#include "google/protobuf/message_lite.h"
#include "server/base/cancellation.h"
#include "server/base/fault_point.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/queued_work.h"
#include "server/rpc/status_to_grpc.h"

namespace ess::rpc {

// Bytes of answers that wait for a slow reader. From the first limit on the work waits where it
// holds least memory, from the second on wherever it is.
inline constexpr size_t kEnoughPendingBytes = 1 << 20;
inline constexpr size_t kMaxPendingBytes = 4 << 20;
// Work that waits for its reader this long lets others compute meanwhile.
inline constexpr absl::Duration kShortWait = absl::Milliseconds(20);

// On the wire.
inline size_t MessageBytes(const google::protobuf::MessageLite& message) {
  return message.ByteSizeLong();
}
inline size_t MessageBytes(const grpc::ByteBuffer& message) { return message.Length(); }

// `Reactor` is a gRPC reactor that writes `Response`s: messages, or the bytes of some. It forwards
// OnWriteDone. Thread-safe.
template <typename Reactor, typename Response>
class StreamWriter {
 public:
  // All outlive the writer. `longest_stall`: of a reader; then the call is aborted.
  StreamWriter(Reactor& reactor, grpc::CallbackServerContext& call, CallObserver& observer,
               const CancellationToken& cancellation, absl::Duration longest_stall)
      : reactor_(reactor),
        call_(call),
        observer_(observer),
        cancellation_(cancellation),
        longest_stall_(longest_stall) {}

  // Sends one message of `work`, which runs, after waiting for room.
  // Errors: kCancelled, kDeadlineExceeded; kAborted  the reader stalls, and the call is cancelled.
  absl::Status Send(Response message, QueuedWork& work);

  // To be called now and then, where `work` holds little memory: waits here for a reader who is
  // behind. `release` is called before a long wait. Errors: those of Send.
  absl::Status AwaitReader(absl::FunctionRef<void()> release, QueuedWork& work);

  // Whether the reader keeps up.
  bool IsAmple() {
    absl::MutexLock lock(&mutex_);
    return HasAmpleRoom();
  }

  // Sends one message without waiting. For short ones that end something. Dropped when nobody
  // reads.
  void SendNow(Response message);

  // From the reactor. Whether somebody still reads.
  bool OnWriteDone(bool ok);

  // Nobody reads any more: nothing waits for room.
  void Break();

  // Ends the call with `status` after the last message. Once; nothing is sent afterwards.
  void Close(const absl::Status& status);

  // Constant once closed.
  const absl::Status& status() const { return status_; }

 private:
  void FinishOnce();
  // The message to be written now, or null.
  const Response* Push(Response message, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until there is room, which is one of the two below. Errors: those of Send.
  using Room = bool (StreamWriter::*)();
  absl::Status AwaitRoom(Room room, absl::FunctionRef<void()> release, QueuedWork& work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return broken_ || pending_bytes_ < kMaxPendingBytes;
  }
  bool HasAmpleRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return broken_ || pending_bytes_ < kEnoughPendingBytes;
  }

  Reactor& reactor_;
  grpc::CallbackServerContext& call_;
  CallObserver& observer_;
  const CancellationToken& cancellation_;
  const absl::Duration longest_stall_;

  absl::Mutex mutex_;
  std::deque<Response> pending_ ABSL_GUARDED_BY(mutex_);  // The first is being written.
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // Nobody reads any more.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;
};

template <typename Reactor, typename Response>
void StreamWriter<Reactor, Response>::Close(const absl::Status& status) {
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    closed_ = true;
    finish = !writing_;
  }
  if (finish) FinishOnce();
}

template <typename Reactor, typename Response>
void StreamWriter<Reactor, Response>::FinishOnce() {
  AddRetryAfter(status_, call_);
  reactor_.Finish(ToGrpcStatus(status_));
}

template <typename Reactor, typename Response>
void StreamWriter<Reactor, Response>::Break() {
  absl::MutexLock lock(&mutex_);
  broken_ = true;
}

template <typename Reactor, typename Response>
absl::Status StreamWriter<Reactor, Response>::AwaitRoom(Room room,
                                                        absl::FunctionRef<void()> release,
                                                        QueuedWork& work) {
  const absl::Time start = absl::Now();
  const absl::Condition has_room(this, room);
  const absl::Time deadline = std::min(cancellation_.deadline(), start + longest_stall_);
  absl::Status waited;
  if (!mutex_.AwaitWithTimeout(has_room, std::min(kShortWait, deadline - start))) {
    mutex_.Unlock();
    release();
    waited = work.WaitAside([&] {
      absl::MutexLock lock(&mutex_);
      const bool goes_on = mutex_.AwaitWithDeadline(has_room, deadline) && !broken_;
      return goes_on ? absl::OkStatus() : absl::CancelledError("no room");
    });
    mutex_.Lock();
  }
  observer_.CountStalled(absl::Now() - start);
  if (waited.ok() && (this->*room)() && !broken_) return absl::OkStatus();
  ESS_RETURN_IF_ERROR(cancellation_.Check());
  if (broken_) return absl::CancelledError("the caller left");
  // The message that is being written would keep the call open for as long as nobody reads.
  work.DisownCancel();
  call_.TryCancel();
  return absl::AbortedError(
      fmt::format("the caller has not read for {:.0f} s; the limit is max_stall_seconds",
                  absl::ToDoubleSeconds(longest_stall_)));
}

template <typename Reactor, typename Response>
absl::Status StreamWriter<Reactor, Response>::AwaitReader(absl::FunctionRef<void()> release,
                                                          QueuedWork& work) {
  absl::MutexLock lock(&mutex_);
  if (HasAmpleRoom()) return absl::OkStatus();
  return AwaitRoom(&StreamWriter::HasAmpleRoom, release, work);
}

template <typename Reactor, typename Response>
absl::Status StreamWriter<Reactor, Response>::Send(Response message, QueuedWork& work) {
  ESS_RETURN_IF_ERROR(cancellation_.Check());
  ESS_FAULT_POINT("send");
  const Response* first = nullptr;
  const size_t bytes = MessageBytes(message);
  observer_.CountSent(static_cast<int64_t>(bytes));
  {
    absl::MutexLock lock(&mutex_);
    if (broken_ || !HasRoom()) {
      const absl::Status room = AwaitRoom(
          &StreamWriter::HasRoom, [] {}, work);
      ESS_RETURN_IF_ERROR(room);
    }
    first = Push(std::move(message), bytes);
  }
  if (first != nullptr) reactor_.StartWrite(first);
  return absl::OkStatus();
}

template <typename Reactor, typename Response>
void StreamWriter<Reactor, Response>::SendNow(Response message) {
  const Response* first = nullptr;
  const size_t bytes = MessageBytes(message);
  {
    absl::MutexLock lock(&mutex_);
    if (broken_ || closed_) return;
    observer_.CountSent(static_cast<int64_t>(bytes));
    first = Push(std::move(message), bytes);
  }
  if (first != nullptr) reactor_.StartWrite(first);
}

template <typename Reactor, typename Response>
const Response* StreamWriter<Reactor, Response>::Push(Response message, size_t bytes) {
  pending_.push_back(std::move(message));
  pending_bytes_ += bytes;
  return std::exchange(writing_, true) ? nullptr : &pending_.front();
}

template <typename Reactor, typename Response>
bool StreamWriter<Reactor, Response>::OnWriteDone(bool ok) {
  const Response* next = nullptr;
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    pending_bytes_ -= MessageBytes(pending_.front());
    pending_.pop_front();
    if (!ok) {
      pending_.clear();
      pending_bytes_ = 0;
      broken_ = true;
    }
    if (pending_.empty()) {
      writing_ = false;
      finish = closed_;
    } else {
      next = &pending_.front();
    }
  }
  if (next != nullptr) reactor_.StartWrite(next);
  if (finish) FinishOnce();
  return ok;
}

}  // namespace ess::rpc
