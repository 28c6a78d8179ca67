// When a refused caller may try again, carried by the status. Torch-free.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ess::admission {

// Trailing metadata of a refused call: milliseconds, a decimal number.
inline constexpr char kRetryAfterMetadata[] = "ess-retry-after-ms";

absl::Status WithRetryAfter(absl::Status status, absl::Duration time);

// None when the status carries no time.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

}  // namespace ess::admission
