// The ESS engine: operators in, measures at every position out. Knows nothing of models or gRPC.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_cache.h"
#include "server/ess/ess_options.h"
#include "server/ess/measure.h"
#include "server/ess/route.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess {

struct HeadWork;

// ESS of a group of heads of one operator.
struct OperatorEss {
  // values[m]: measure m, row-major float32 [heads, positions] or [heads, positions, K].
  std::vector<std::vector<float>> values;
  // With EssOptions::certify, else empty: aligned with `values`, 1 where the value is certain.
  std::vector<std::vector<uint8_t>> certain;
  // Per head: feature_epsilon * max_i sigma_1(H_i) * sqrt(L).
  std::vector<double> noise_floors;
  // Per measure, how it was computed: "inertia_tree", "band_windows", ... (route.h)
  std::vector<std::string> routes;
};

// Thread-safe; calls share the worker pool, and take turns with it.
class EssEngine {
 public:
  struct Options {
    // Device memory for the batches of dense operators on an accelerator. A head of length L takes
    // about 60 L^2 bytes; longer ones than fit here are computed on the host.
    int64_t tensor_bytes = int64_t{2} << 30;
    // Takes that route on the CPU as well, where the host's is faster: for tests and benchmarks.
    bool tensors_on_cpu = false;
  };

  // `pool` outlives the engine.
  explicit EssEngine(WorkerPool& pool) : EssEngine(pool, Options()) {}
  EssEngine(WorkerPool& pool, const Options& options) : pool_(pool), options_(options) {}

  int threads() const { return pool_.threads(); }

  // Computes `measures` for `heads` (indices into the operator) at `positions` (ascending, in
  // [0, L)).
  // Errors: kInvalidArgument  a measure this class does not have (kCausal of a dense operator), a
  //                           horizon below 1.
  //         kInternal         an operator with a NaN or infinity: names head and entry.
  //         kCancelled, kDeadlineExceeded  within 200 ms of the token's change.
  // Memory: at most 4 L^2 doubles per thread for a dense operator; O(L N) for the native routes.
  absl::StatusOr<OperatorEss> Compute(const operators::SequenceOperator& op,
                                      std::span<const int64_t> heads,
                                      std::span<const int64_t> positions,
                                      std::span<const Measure> measures, const EssOptions& options,
                                      const CancellationToken& cancellation) const;

 private:
  // Without a horizon. Matrices too long for tensor_bytes go the way of the host.
  Route RouteOf(const operators::SequenceOperator& op) const;
  // A head whose operator does not depend on the input may be known already.
  absl::StatusOr<HeadEss> CachedHead(const operators::SequenceOperator& op, int64_t head,
                                     std::span<const int64_t> positions,
                                     std::span<const Measure> measures, const EssOptions& options,
                                     Route route, HeadWork& work,
                                     const CancellationToken& cancellation) const;

  static constexpr int64_t kCacheBytes = int64_t{64} << 20;

  WorkerPool& pool_;
  const Options options_;
  mutable EssCache cache_{kCacheBytes};
};

// Floating point operations of the SVDs that these measures need at these positions for one head:
// 4 m n^2 - 4/3 n^3 for a block of m x n, m >= n. singular_values needs them, every measure with a
// horizon, and counts that may be too small for the fast routes: relative and head_relative below
// 1e-7, tolerance below 1e-6 or 1e-7 sqrt(L).
double ReferenceWork(const OperatorShape& shape, std::span<const Measure> measures,
                     const EssOptions& options, std::span<const int64_t> positions);

}  // namespace ess
