// Bytes that all calls together may hold. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace ess::admission {

// Thread-safe. Nobody waits: what does not fit is refused.
class ByteBudget {
 public:
  // Gives its bytes back when it is destroyed or assigned over. Move-only.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation() { Release(); }

   private:
    friend class ByteBudget;
    Reservation(ByteBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}
    void Release();

    ByteBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // `limit_name`: the configuration field of `limit`, for the message.
  ByteBudget(int64_t limit, std::string limit_name)
      : limit_(limit), limit_name_(std::move(limit_name)) {}

  // Errors: kResourceExhausted  less than `bytes` are free; names the limit.
  absl::StatusOr<Reservation> Reserve(int64_t bytes);

 private:
  const int64_t limit_;
  const std::string limit_name_;
  absl::Mutex mutex_;
  int64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ess::admission
