// sigma_1 of the blocks at all positions of a reduced window (band_window.h), side by side.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/band_window.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Lanczos on H^T H in the coordinates of the band, one column per position, from the top vector of
// the band with a little noise, without reorthogonalization: a position stops when the residual of
// its largest Ritz value is below 1e-6 of it, and its square is what the value is off by.
//
// `wanted` [width]: the rows of the window whose sigma_1 matters. Returns it [width] in the
// window's units; 0 where it is not wanted, NaN where it did not converge.
// Errors: kCancelled, kDeadlineExceeded.
// Cost: 8 common width (width + 40) operations a step; 5 steps or so where sigma_1 stands out, up
// to 25 elsewhere.
absl::StatusOr<std::vector<double>> WindowSpectralNorms(const BandWindow& window,
                                                        std::span<const uint8_t> wanted,
                                                        Arena& arena,
                                                        const CancellationToken& cancellation);

// Doubles of scratch that it needs.
int64_t WindowNormsScratch(int64_t common, int64_t width);

}  // namespace ess::linalg
