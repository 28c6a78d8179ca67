// Clocks and statuses of the benchmark programs.
#pragma once

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace ess::benchmarks {

// Seconds on a clock that only goes forward.
double Now();

// Takes longer than anything that is measured.
inline constexpr double kNotYet = 1e300;

// Runs `work` once, and again until `budget` seconds are spent; `best` becomes the seconds of the
// fastest run, if that is less: other work on the machine only ever adds time. Contestants call it
// in turns, so that a busy machine slows all of them.
void KeepBest(double& best, absl::FunctionRef<void()> work, double budget = 0.2);

// Seconds of the fastest of several runs within `budget`.
double BestSeconds(absl::FunctionRef<void()> work, double budget = 0.5);

// How often contestants take turns at this length, where a turn takes long for itself.
int Turns(int64_t length);

// Ends the program with the status on standard error, if it is an error.
void ExitUnlessOk(const absl::Status& status);

// The value, or the end of the program with the status on standard error.
template <typename T>
T ValueOrExit(absl::StatusOr<T> result) {
  ExitUnlessOk(result.status());
  return *std::move(result);
}

}  // namespace ess::benchmarks
