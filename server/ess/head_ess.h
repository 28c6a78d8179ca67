// All measures of one head of an operator, on one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/measure.h"
#include "server/linalg/inertia_tree.h"

namespace ess::operators {
class SequenceOperator;
}

namespace ess {

// Below this share of max_i sigma_1(H_i) the inertia tree's rounding decides the counts; SVD does
// not mind (docs/ess.md).
inline constexpr double kSmallestTreeTolerance = 1e-7;

// One thread's scratch, and the head that it holds.
struct HeadWork {
  std::vector<double> matrix;  // T / scale, [L, L]; its largest entry in H_1 .. is in [0.5, 1).
  double scale = 1;            // A power of two.
  double spectral_norm = 0;    // max_i sigma_1(H_i) of `matrix`.
  linalg::InertiaTree tree;
};

// What one head contributes to OperatorEss.
struct HeadEss {
  std::vector<std::vector<float>> values;  // [measure][positions * ValuesPerPosition()]
  std::vector<bool> by_reference;          // [measure]
  double noise_floor = 0;
};

// Counts go by the inertia tree, ||H_i||_F by prefix sums, the rest by SVD at each position; so do
// counts at a tolerance that is too small for the tree, or where its pivots are not stable.
//
// Errors: kInternal  an entry is not finite; kCancelled, kDeadlineExceeded.
// Throws what LibTorch and the allocator throw. REQUIRES: no measure is kCausal.
absl::StatusOr<HeadEss> ComputeHead(const operators::SequenceOperator& op, int64_t head,
                                    std::span<const int64_t> positions,
                                    std::span<const Measure> measures, HeadWork& work,
                                    const CancellationToken& cancellation);

}  // namespace ess
