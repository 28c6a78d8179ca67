// Waiting for what others must do first, without keeping them from it.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ess {

// Calls `wait` exactly once, which may take long and computes nothing, in such a way that others
// may compute meanwhile. Errors: those of `wait`; and of going on after it, as of a slot that
// nobody leaves.
using WaitAside = absl::FunctionRef<absl::Status(absl::FunctionRef<absl::Status()> wait)>;

// For who is in nobody's way.
inline absl::Status WaitHere(absl::FunctionRef<absl::Status()> wait) { return wait(); }

}  // namespace ess
