// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/matrix_product.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/matrix_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/tile_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// [depth, columns] of an operand given as such, or as [columns, depth].
HWY_INLINE void PackOperand(MatrixView view, bool flipped, int64_t depth, int64_t columns,
                            double* strips) {
  if (flipped) {
    PackTransposed(view, depth, columns, false, strips);
  } else {
    PackRows(view, depth, columns, strips);
  }
}

void MultiplyMatricesOnTarget(const ProductSize& size, const ProductOperand& lhs,
                              const ProductOperand& rhs, double* out, int64_t out_stride,
                              Arena& arena) {
  const ArenaScope scope(arena);
  double* left = arena.Allocate(StripCount(size.rows) * kStrip * size.depth);
  double* right = arena.Allocate(StripCount(size.columns) * kStrip * size.depth);
  PackOperand(lhs.view, !lhs.transposed, size.depth, size.rows, left);
  PackOperand(rhs.view, rhs.transposed, size.depth, size.columns, right);
  for (int64_t column = 0; column < size.columns; column += kStrip) {
    const int64_t first = size.lower_only ? column / kBlock * kBlock : 0;
    for (int64_t row = first; row < size.rows; row += kBlock) {
      const int64_t end = size.lower_only ? std::min(size.columns, row + kBlock) : size.columns;
      SubtractProduct<kStrip>(size.depth, left + row / kStrip * kStrip * size.depth + row % kStrip,
                              right + column * size.depth, {}, out + row * out_stride + column,
                              out_stride, std::min(kStrip, end - column), -1.0);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(MultiplyMatricesOnTarget);
}  // namespace

void MultiplyMatrices(const ProductSize& size, const ProductOperand& lhs, const ProductOperand& rhs,
                      double* out, int64_t out_stride, Arena& arena) {
  HWY_DYNAMIC_DISPATCH(MultiplyMatricesOnTarget)(size, lhs, rhs, out, out_stride, arena);
}

int64_t MultiplyScratch(const ProductSize& size) {
  return (StripCount(size.rows) + StripCount(size.columns)) * kStrip * size.depth;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
