// Products of matrices in strips of 24 columns, and the QR update of a triangular factor that is
// built from them. Included once per Highway target.
#if defined(ESS_LINALG_STRIP_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_STRIP_PRODUCTS_INL_H_
#undef ESS_LINALG_STRIP_PRODUCTS_INL_H_
#else
#define ESS_LINALG_STRIP_PRODUCTS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Which operands have zeros above their diagonal, and which part of the result is wanted.
struct ProductShape {
  bool lhs_lower = false;
  bool rhs_lower = false;
  bool upper_only = false;  // Tiles on and above the diagonal of the result.
};

// out = scale lhs^T rhs. lhs [depth, rows], rhs [depth, columns] and out [rows, columns] are in
// strips of 24 columns; rows, columns and depth are multiples of 8.
HWY_INLINE void MultiplyStrips(int64_t depth, const double* lhs, int64_t rows, const double* rhs,
                               int64_t columns, double scale, ProductShape shape, double* out) {
  for (int64_t column = 0; column < columns; column += kStrip) {
    const int64_t width = std::min(kStrip, columns - column);
    const int64_t end = shape.upper_only ? std::min(rows, column + width) : rows;
    for (int64_t row = 0; row < end; row += kBlock) {
      const int64_t first = std::min(
          depth, std::max(shape.lhs_lower ? row : 0, shape.rhs_lower ? column : int64_t{0}));
      SubtractProduct<kStrip>(depth - first,
                              lhs + row / kStrip * kStrip * depth + first * kStrip + row % kStrip,
                              rhs + column * depth + first * kStrip, {},
                              out + column * rows + row * kStrip, kStrip, width, -scale);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_STRIP_PRODUCTS_INL_H_
