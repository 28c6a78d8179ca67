#include "server/admission/byte_budget.h"

#include "fmt/format.h"

namespace ess::admission {

ByteBudget::Reservation& ByteBudget::Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  Release();
  budget_ = std::exchange(other.budget_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void ByteBudget::Reservation::Release() {
  if (budget_ == nullptr) return;
  absl::MutexLock lock(&budget_->mutex_);
  budget_->reserved_ -= bytes_;
  budget_ = nullptr;
}

absl::StatusOr<ByteBudget::Reservation> ByteBudget::Reserve(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  if (bytes > limit_ - reserved_) {
    return absl::ResourceExhaustedError(
        fmt::format("{} bytes are asked for and {} of {} are free ({}); try again later", bytes,
                    limit_ - reserved_, limit_, limit_name_));
  }
  reserved_ += bytes;
  return Reservation(this, bytes);
}

}  // namespace ess::admission
