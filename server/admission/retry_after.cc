#include "server/admission/retry_after.h"

#include <cstdint>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"

namespace ess::admission {

absl::Status WithRetryAfter(absl::Status status, absl::Duration time) {
  status.SetPayload(kRetryAfterMetadata,
                    absl::Cord(std::to_string(absl::ToInt64Milliseconds(time))));
  return status;
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterMetadata);
  int64_t milliseconds = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &milliseconds)) return std::nullopt;
  return absl::Milliseconds(milliseconds);
}

}  // namespace ess::admission
