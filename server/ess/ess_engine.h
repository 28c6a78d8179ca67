// The ESS engine: operators in, measures at every position out. Knows nothing of models or gRPC.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/base/worker_pool.h"
#include "server/ess/measure.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess {

// Options that hold for all measures of one computation.
struct EssOptions {
  // H_i is cut to T[i : i + horizon, :i]. At least 1; absent: no cut.
  std::optional<int64_t> horizon;
  // Each count comes with whether it is certain; uncertain ones are recomputed by SVD.
  bool certify = false;

  friend bool operator==(const EssOptions&, const EssOptions&) = default;
};

// ESS of a group of heads of one operator.
struct OperatorEss {
  // values[m]: measure m, row-major float32 [heads, positions] or [heads, positions, K].
  std::vector<std::vector<float>> values;
  // With EssOptions::certify, else empty: aligned with `values`, 1 where the value is certain.
  std::vector<std::vector<uint8_t>> certain;
  // Per head: feature_epsilon * max_i sigma_1(H_i) * sqrt(L).
  std::vector<double> noise_floors;
  // Per measure, how it was computed: "inertia_tree", "reference_svd", ...
  std::vector<std::string> routes;
};

// Thread-safe; calls share the worker pool, and take turns with it.
class EssEngine {
 public:
  // `pool` outlives the engine.
  explicit EssEngine(WorkerPool& pool) : pool_(pool) {}

  int threads() const { return pool_.threads(); }

  // Computes `measures` for `heads` (indices into the operator) at `positions` (ascending, in
  // [0, L)).
  // Errors: kInvalidArgument  a measure this class does not have (kCausal of a dense operator).
  //         kInternal         an operator with a NaN or infinity: names head and entry.
  //         kCancelled, kDeadlineExceeded  within 200 ms of the token's change.
  // Memory: at most 4 L^2 doubles per thread.
  absl::StatusOr<OperatorEss> Compute(const operators::SequenceOperator& op,
                                      std::span<const int64_t> heads,
                                      std::span<const int64_t> positions,
                                      std::span<const Measure> measures, const EssOptions& options,
                                      const CancellationToken& cancellation) const;

 private:
  WorkerPool& pool_;
};

// Whether this measure goes by the reference route, an SVD at each position.
bool NeedsReference(const Measure& measure);

// Floating point operations of the reference route for one head: sum over the positions of
// 4 m n^2 - 4/3 n^3 with m = max(i, L - i), n = min(i, L - i). 0 when no measure needs it. Counts
// that may be too small for the tree need it: head_relative below 1e-7, tolerance below 1e-6 or
// 1e-7 sqrt(L).
double ReferenceWork(std::span<const Measure> measures, int64_t length,
                     std::span<const int64_t> positions);

}  // namespace ess
