// One window of positions after the orthogonal reduction of what all of them share.
//
// Positions [first, first + width) of a matrix T have in common the block G = T[end:, :first], end
// = first + width. With X = T[first:end, :first], Y = T[end:, first:end] and T_x = T[first:end,
// first:end], every H_i of the window consists of G, the rows of X and T_x from i on, and the
// columns of Y and T_x before i. Rotations of the rows of G and of its columns change no singular
// value, so G^T G is brought to a block tridiagonal matrix with blocks of 8 x 8, the band, and P =
// X^T and Q = G^T Y are rotated with it. docs/ess.md tells what that is good for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Everything is times `unit`, or `unit` squared for products of two entries of T.
struct BandWindow {
  int64_t first = 0;
  int64_t width = 0;   // A multiple of 8, as `first`.
  int64_t common = 0;  // Columns of G: first.
  // Rows of the band, a multiple of 8; G^T G is zero beyond, to rounding.
  int64_t band = 0;
  double unit = 1;
  double* diagonal = nullptr;  // [band / 8][8][8], each symmetric.
  double* coupling = nullptr;  // [band / 8][8][8]: rows of the next block, columns of this one.
  // P, then Q: each in StripCount(width) strips of 24 columns, [common][24] each.
  double* sides = nullptr;
  MatrixView inside;  // T_x, [width, width]; the strictly lower triangle.
  MatrixView corner;  // Y^T Y, [width, width].
  // P^T P, P^T Q and Q^T Q of the rows beyond the band, [width, width], lower triangles; no data
  // when there are no such rows.
  MatrixView rest_pp;
  MatrixView rest_pq;
  MatrixView rest_qq;

  int64_t side_strips() const { return StripCount(width); }
  int64_t StripWidth(int64_t strip) const { return std::min(kStrip, width - strip * kStrip); }
  double* Side(bool second, int64_t strip) const {
    return sides + ((second ? side_strips() : 0) + strip) * kStrip * common;
  }
};

// What a window is made from.
struct BandSource {
  MatrixView matrix;      // T; rows [0, rows).
  int64_t rows = 0;       // At least the end of the window.
  MatrixView gram;        // T[end:, :end]^T T[end:, :end]; the lower triangle in whole blocks.
  double unit = 1;        // A power of two that brings the largest ||H_i||_F of the window near 1.
  double floor_norm = 1;  // The smallest of them that matters, times unit; at least 1e-40.
};

// gram[columns, columns] (+)= rows^T rows of a matrix [depth, columns]; the lower triangle in whole
// blocks of 8. Columns: a multiple of 8. Cost: depth columns^2 operations.
absl::Status AccumulateGram(MatrixView rows, int64_t depth, int64_t columns, bool add, double* gram,
                            int64_t gram_stride, Arena& arena,
                            const CancellationToken& cancellation);

// Reduces a window. Its arrays are allocated from `arena` and live as long as the caller's scope.
// Cost: 4/3 common^3 + 4 common^2 width operations, less when G has a low rank.
absl::StatusOr<BandWindow> ReduceWindow(const BandSource& source, int64_t first, int64_t width,
                                        Arena& arena, const CancellationToken& cancellation);

// Doubles that ReduceWindow takes from its arena, those of the result among them.
int64_t ReduceWindowScratch(int64_t common, int64_t width);

}  // namespace ess::linalg
