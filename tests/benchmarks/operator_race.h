// One operator at one length: the engine against SVD and Gram matrices at every position.
#pragma once

#include <cstdint>
#include <string>

#include "tests/benchmarks/operator_cases.h"
#include "tests/benchmarks/settings.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {

// Seconds are those of one head, or of one channel.
struct RaceResult {
  double one_thread = kNotYet;   // One tolerance.
  double two_threads = kNotYet;  // The same, of as many heads as keep both busy.
  double five = kNotYet;         // Five tolerances.
  double entropy = kNotYet;
  double svd = 0;
  double gram = 0;
  bool extrapolated = false;
  int64_t wrong = 0;  // Of all five tolerances.
  int64_t compared = 0;
  int64_t gram_wrong = 0;  // Of the Gram matrices' own counts, at one tolerance.
  double entropy_error = 0;
  double peak_bytes = 0;  // Of a call with one tolerance and entropies, on one thread.
  std::string route;      // Of a tolerance.
};

RaceResult RaceOperator(const OperatorCase& contested, const Settings& settings);

}  // namespace ess::benchmarks
