// Sums over every past-to-future block H_i = T[i:, :i] at once, each in one pass over T.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

// Shapes: `matrix` is T, row-major [length, length]; `squares` has an entry per position. Nothing
// is subtracted, so nothing cancels. Cost: O(L^2) each.

// bounds[i] >= sigma_1(H_i) for i in [0, L): the root of the largest sum of |T| down a column of
// H_i times the largest one along a row of T from row i on (Schur's test). Sharper than ||H_i||_F
// where entries are of one sign and their sums are even, as attention's are.
void BlockSchurBounds(std::span<const double> matrix, int64_t length, std::span<double> bounds);

// squares[i] = ||H_i||_F^2 for i in [0, L).
void BlockSquares(std::span<const double> matrix, int64_t length, std::span<double> squares);

// squares[i] = ||H_i x[:i]||^2 for i in [0, n], x [n], n < L.
void RightProductSquares(std::span<const double> matrix, int64_t length, std::span<const double> x,
                         std::span<double> squares);

// squares[i - (L - n)] = ||H_i^T y[i - (L - n):]||^2 for i in [L - n, L), y [n], 1 <= n <= L.
void LeftProductSquares(std::span<const double> matrix, int64_t length, std::span<const double> y,
                        std::span<double> squares);

}  // namespace ess::linalg
