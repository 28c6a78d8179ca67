// How much memory a piece of work takes, by the kernel's own count.
#pragma once

#include "absl/functional/function_ref.h"

namespace ess::benchmarks {

// By how many bytes the resident memory of the process rose above its level before, at the highest.
// 0 where the kernel does not say. Not while other threads work.
double PeakBytes(absl::FunctionRef<void()> work);

}  // namespace ess::benchmarks
