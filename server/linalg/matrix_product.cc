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
    const int64_t start = size.rhs_lower ? std::min(column, size.depth) : 0;
    for (int64_t row = size.lower_only ? column : 0; row < size.rows; row += kBlock) {
      const int64_t columns = std::min(
          kStrip, (size.lower_only ? std::min(size.columns, row + kBlock) : size.columns) - column);
      const int64_t end = size.lhs_lower ? std::min(size.depth, row + kBlock) : size.depth;
      SubtractProduct<kStrip>(
          std::max(end - start, int64_t{0}),
          left + row / kStrip * kStrip * size.depth + start * kStrip + row % kStrip,
          right + column * size.depth + start * kStrip, {}, out + row * out_stride + column,
          out_stride, columns, -1.0);
    }
  }
}

void InvertUnitLowerOnTarget(int64_t size, const double* strict, double* out) {
  const Float64 d;
  for (int64_t row = 0; row < size; ++row) {
    double* target = out + row * size;
    std::fill_n(target, row / kBlock * kBlock + kBlock, 0.0);
    target[row] = 1;
    for (int64_t k = 0; k < row; ++k) {
      const Vec factor = hn::Set(d, strict[row * size + k]);
      const double* above = out + k * size;
      for (int64_t c = 0; c <= k; c += kLanes) {
        hn::StoreU(hn::NegMulAdd(factor, hn::LoadU(d, above + c), hn::LoadU(d, target + c)), d,
                   target + c);
      }
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(MultiplyMatricesOnTarget);
HWY_EXPORT(InvertUnitLowerOnTarget);
}  // namespace

void MultiplyMatrices(const ProductSize& size, const ProductOperand& lhs, const ProductOperand& rhs,
                      double* out, int64_t out_stride, Arena& arena) {
  HWY_DYNAMIC_DISPATCH(MultiplyMatricesOnTarget)(size, lhs, rhs, out, out_stride, arena);
}

void InvertUnitLower(int64_t size, const double* strict, double* out) {
  HWY_DYNAMIC_DISPATCH(InvertUnitLowerOnTarget)(size, strict, out);
}

int64_t MultiplyScratch(const ProductSize& size) {
  return (StripCount(size.rows) + StripCount(size.columns)) * kStrip * size.depth;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
