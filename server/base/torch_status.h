// The only place where LibTorch's exceptions are caught.
#pragma once

#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ess {

// Runs `work`; a LibTorch or C++ exception becomes a Status:
//   c10::OutOfMemoryError, std::bad_alloc  kResourceExhausted
//   anything else                          kInternal
// An error after which the accelerator cannot work any more is also recorded (device_failure.h).
// `what` names the work in the message. Of a device's own error, and of memory that ran out, the
// message has the first line; any other exception's words go to the log only.
absl::Status CatchTorch(std::string_view what, absl::FunctionRef<absl::Status()> work);

}  // namespace ess
