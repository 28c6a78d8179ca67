// Passes over all entries of a large matrix, at the speed of memory.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

// Whether no entry is infinite or NaN.
bool AllFinite(std::span<const double> entries);

// The largest magnitude below the diagonal of a row-major [length, length] matrix; 0 for length 1.
// REQUIRES: finite entries.
double LargestBelowDiagonal(std::span<const double> matrix, int64_t length);

// Multiplies everything below the diagonal by `factor`.
void ScaleBelowDiagonal(double factor, std::span<double> matrix, int64_t length);

}  // namespace ess::linalg
