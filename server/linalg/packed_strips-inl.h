// Copies of matrix parts into strips of 24 columns, straight or transposed. Included once per
// Highway target.
#if defined(ESS_LINALG_PACKED_STRIPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_PACKED_STRIPS_INL_H_
#undef ESS_LINALG_PACKED_STRIPS_INL_H_
#else
#define ESS_LINALG_PACKED_STRIPS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// strips[column / 24][row][column % 24] = source[row, column]. Rows and columns: multiples of 8.
HWY_INLINE void PackRows(MatrixView source, int64_t rows, int64_t columns, double* strips) {
  const Float64 d;
  for (int64_t first = 0; first < columns; first += kStrip, strips += kStrip * rows) {
    const int64_t width = std::min(kStrip, columns - first);
    const double* from = source.data + first;
    double* to = strips;
    for (int64_t row = 0; row < rows; ++row, from += source.stride, to += kStrip) {
      for (int64_t c = 0; c < width; c += kLanes) hn::StoreU(hn::LoadU(d, from + c), d, to + c);
    }
  }
}

// to[r][c] = from[c][r] for an 8 x 8 block.
HWY_INLINE void TransposeBlock(const double* HWY_RESTRICT from, int64_t from_stride,
                               double* HWY_RESTRICT to, int64_t to_stride) {
#if HWY_MAX_BYTES >= 32
  const hn::CappedTag<double, 4> d;
  for (int64_t r = 0; r < kBlock; r += 4) {
    for (int64_t c = 0; c < kBlock; c += 4) {
      const double* corner = from + c * from_stride + r;
      const auto x0 = hn::LoadU(d, corner);
      const auto x1 = hn::LoadU(d, corner + from_stride);
      const auto x2 = hn::LoadU(d, corner + 2 * from_stride);
      const auto x3 = hn::LoadU(d, corner + 3 * from_stride);
      // Pairs within 128 bits, then halves: y0 = {x0[0], x1[0], x0[2], x1[2]}, ...
      const auto y0 = hn::InterleaveLower(d, x0, x1);
      const auto y1 = hn::InterleaveUpper(d, x0, x1);
      const auto y2 = hn::InterleaveLower(d, x2, x3);
      const auto y3 = hn::InterleaveUpper(d, x2, x3);
      double* target = to + r * to_stride + c;
      hn::StoreU(hn::ConcatLowerLower(d, y2, y0), d, target);
      hn::StoreU(hn::ConcatLowerLower(d, y3, y1), d, target + to_stride);
      hn::StoreU(hn::ConcatUpperUpper(d, y2, y0), d, target + 2 * to_stride);
      hn::StoreU(hn::ConcatUpperUpper(d, y3, y1), d, target + 3 * to_stride);
    }
  }
#else
  for (int64_t r = 0; r < kBlock; ++r) {
    for (int64_t c = 0; c < kBlock; ++c) to[r * to_stride + c] = from[c * from_stride + r];
  }
#endif
}

// strips[column / 24][row][column % 24] = source[column, row]; with `upper_only`, just the blocks
// on and above the diagonal of the result.
HWY_INLINE void PackTransposed(MatrixView source, int64_t rows, int64_t columns, bool upper_only,
                               double* strips) {
  for (int64_t column = 0; column < columns; column += kBlock) {
    double* to = strips + column / kStrip * kStrip * rows + column % kStrip;
    const int64_t end = upper_only ? std::min(rows, column + kBlock) : rows;
    for (int64_t row = 0; row < end; row += kBlock) {
      TransposeBlock(source.data + column * source.stride + row, source.stride, to + row * kStrip,
                     kStrip);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_PACKED_STRIPS_INL_H_
