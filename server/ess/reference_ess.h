// Every measure from the singular values of each H_i: the definitions of docs/ess.md, spelled out.
// The slow truth that the fast routes are tested against, and the route of the measures that have
// no fast one yet.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/measure.h"

namespace ess {

// A singular value equal to the tolerance is not counted: engine and reference compare with
// tau (1 + kTieNudge), far above the rounding of sigma and far below any difference of meaning.
inline constexpr double kTieNudge = 1e-11;

// #{sigma > tau (1 + kTieNudge)}.
int64_t CountAbove(std::span<const double> singular_values, double tau);

// exp(-sum p ln p) with p = sigma / sum sigma and 0 ln 0 = 0; 0 when every sigma is 0.
double EntropyEss(std::span<const double> singular_values);

// One measure of one H_i, measure.ValuesPerPosition() numbers, from its singular values in
// descending order. `head_spectral_norm` is max_i sigma_1(H_i); only kHeadRelative reads it.
// REQUIRES: the kind is not kCausal.
std::vector<float> EvaluateMeasure(const Measure& measure, std::span<const double> singular_values,
                                   double head_spectral_norm);

// values[m]: measure m at each position, row-major [positions] or [positions, K]. With a horizon,
// of the cut block T[i : i + horizon, :i].
//
// Shapes: `matrix` is T of one head, row-major float64 [length, length].
// Errors: as BlockSingularValues; kCancelled, kDeadlineExceeded between two positions.
// Cost:   one SVD at each of `positions`; at every position when a measure is kHeadRelative.
// REQUIRES: no measure is kCausal.
absl::StatusOr<std::vector<std::vector<float>>> ReferenceEss(std::span<const double> matrix,
                                                             int64_t length,
                                                             std::span<const int64_t> positions,
                                                             std::span<const Measure> measures,
                                                             const CancellationToken& cancellation,
                                                             std::optional<int64_t> horizon = {});

}  // namespace ess
