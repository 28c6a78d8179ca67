// Counts of negative pivots that can be trusted: eliminations without exchanges meet small pivots
// by accident, or because tau is a singular value of a block that many positions share. Their
// growth tells, and a slightly larger tau is the cure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

struct BlockCounts {
  std::vector<int32_t> counts;  // One for each position.
  // 0: a singular value within max(1e-9, 1e-16 (sigma_1 / tau)^2) relative of tau may be on either
  // side of it. Otherwise each count is exact for some threshold within this relative distance of
  // tau; infinite when the counts may be anything.
  double uncertainty = 0;
};

// Ties are not counted: tau is moved up by this share, far beyond rounding and far below any
// meaning.
inline constexpr double kTieNudge = 1e-11;

// Growth far above what the operator's own scale explains: the counts may be wrong.
double GrowthLimit(double tau, double spectral_norm);

// Runs an elimination at tau (1 + 1e-11), and where its growth is not what sigma_1 explains, at up
// to 4e-7 above tau; the best of the runs. `run` fills `sums`, and its growth is in units of tau,
// as that of RunTree is.
// `spectral_norm`: sigma_1 or a lower bound within a factor of ten or so. Errors: those of `run`.
absl::StatusOr<BlockCounts> CountWithNudges(
    double tau, double spectral_norm, std::span<const double> sums,
    absl::FunctionRef<absl::StatusOr<TreeResult>(double nudged_tau)> run);

// Counts at tau, and where one run is not certain also a little below and above it: where those two
// agree the count is proved, elsewhere it is doubtful. `count` is a CountWithNudges. Errors: those
// of `count`.
absl::StatusOr<PositionCounts> ProvedCounts(
    double tau, absl::FunctionRef<absl::StatusOr<BlockCounts>(double tau)> count);

}  // namespace ess::linalg
