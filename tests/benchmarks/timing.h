// Clocks and statuses of the benchmark programs.
#pragma once

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace ess::benchmarks {

// Seconds on a clock that only goes forward.
double Now();

// Seconds of the fastest of several runs: other work on the machine only ever adds time. At least 3
// runs, then until `budget` seconds are spent.
double BestSeconds(absl::FunctionRef<void()> work, double budget = 0.5);

// Ends the program with the status on standard error, if it is an error.
void ExitUnlessOk(const absl::Status& status);

// The value, or the end of the program with the status on standard error.
template <typename T>
T ValueOrExit(absl::StatusOr<T> result) {
  ExitUnlessOk(result.status());
  return *std::move(result);
}

}  // namespace ess::benchmarks
