// The inner loops of the inertia tree on tiles of 8 x 8, 8 x 16 or 8 x 24 numbers, written once
// for every instruction set. Included once per Highway target.
#if defined(ESS_LINALG_TILE_KERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_TILE_KERNELS_INL_H_
#undef ESS_LINALG_TILE_KERNELS_INL_H_
#else
#define ESS_LINALG_TILE_KERNELS_INL_H_
#endif

#include <cmath>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "server/linalg/float64_vectors-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Register tiles: with 32 registers of 8 lanes a whole tile of 8 x 24 stays in registers; with 16
// registers, 4 rows of 3 vectors do, and 8 rows of 1 vector where all 8 rows are needed at once.
inline constexpr int kProductRows = kWideRegisters ? 8 : 4;
inline constexpr int kSolveVectors = kWideRegisters ? 3 : 1;

// sum[r][v] = sum over k < depth of lhs[k][r] * rhs[k][v], rhs being in a strip of 24.
template <int kRows, int kVectors, int64_t kLhsStride>
HWY_INLINE void Accumulate(int64_t depth, const double* HWY_RESTRICT lhs,
                           const double* HWY_RESTRICT rhs, Vec (&sum)[kRows][kVectors]) {
  const Float64 d;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < depth; ++k, lhs += kLhsStride, rhs += kStrip) {
    Vec right[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, rhs + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec left = hn::Set(d, lhs[r]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(left, right[v], sum[r][v]);
    }
  }
}

// One register tile of SubtractProduct.
template <int kRows, int kVectors, int64_t kLhsStride>
HWY_NOINLINE void SubtractRegisterTile(int64_t depth, const double* lhs, const double* rhs,
                                       MatrixView in, double* out, int64_t out_stride,
                                       double scale) {
  const Float64 d;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors * kLanes; v += kBlock) {
      hwy::Prefetch((in.data != nullptr ? in.data + r * in.stride : out + r * out_stride) + v);
    }
  }
  Vec sum[kRows][kVectors];
  Accumulate<kRows, kVectors, kLhsStride>(depth, lhs, rhs, sum);
  const Vec factor = hn::Set(d, scale);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      const Vec before =
          in.data != nullptr ? hn::LoadU(d, in.data + r * in.stride + v * kLanes) : hn::Zero(d);
      hn::StoreU(hn::NegMulAdd(factor, sum[r][v], before), d, out + r * out_stride + v * kLanes);
    }
  }
}

// out = in - scale lhs^T rhs on 8 rows and `columns` (8, 16 or 24) columns; no `in` means zero.
// `in` may be `out`. lhs: [depth, kLhsStride], 8 of each row are read; rhs: [depth, 24].
template <int64_t kLhsStride>
HWY_INLINE void SubtractProduct(int64_t depth, const double* lhs, const double* rhs, MatrixView in,
                                double* out, int64_t out_stride, int64_t columns, double scale) {
  for (int64_t row = 0; row < kBlock; row += kProductRows) {
    int64_t column = 0;
    while (column < columns) {
      const int64_t vectors = (columns - column) / kLanes;
      const MatrixView in_tile = in.Block(row, column);
      double* out_tile = out + row * out_stride + column;
      const double* right = rhs + column;
      if (vectors >= 3 && vectors != 4) {
        SubtractRegisterTile<kProductRows, 3, kLhsStride>(depth, lhs + row, right, in_tile,
                                                          out_tile, out_stride, scale);
        column += 3 * kLanes;
      } else if (vectors >= 2) {
        SubtractRegisterTile<kProductRows, 2, kLhsStride>(depth, lhs + row, right, in_tile,
                                                          out_tile, out_stride, scale);
        column += 2 * kLanes;
      } else {
        SubtractRegisterTile<kProductRows, 1, kLhsStride>(depth, lhs + row, right, in_tile,
                                                          out_tile, out_stride, scale);
        column += kLanes;
      }
    }
  }
}

// LDL^T of one 8 x 8 pivot block, without exchanges.
struct PivotBlock {
  double multiplier[kBlock][kBlock];  // Unit lower triangle L; [row][column].
  double inverse[kBlock];             // 1 / D.
  int64_t negative = 0;
  double product = 1;  // Of the pivots.
  bool singular = false;

  double Sum(PivotSum sum) const {
    if (sum == PivotSum::kNegative) return static_cast<double>(negative);
    if (std::isnormal(product)) return std::log(std::abs(product));
    double logarithm = 0;  // The product of 8 pivots left the range of numbers.
    for (const double x : inverse) logarithm -= std::log(std::abs(x));
    return logarithm;
  }
};

// `tile` is the upper triangle of the block in a strip of 24.
inline HWY_NOINLINE PivotBlock FactorPivotBlock(const double* tile) {
  const Float64 d;
  PivotBlock pivot;
  HWY_ALIGN double row[kBlock][kBlock];
  for (int r = 0; r < kBlock; ++r) {
    for (int c = 0; c < kBlock; c += kLanes) {
      hn::Store(hn::LoadU(d, tile + r * kStrip + c), d, row[r] + c);
    }
  }
  for (int k = 0; k < kBlock; ++k) {
    const double value = row[k][k];
    pivot.negative += value < 0;
    pivot.product *= value;
    pivot.singular |= !(std::abs(value) > 0);  // Zero or not a number.
    pivot.inverse[k] = 1 / value;
    for (int r = k + 1; r < kBlock; ++r) {
      const double multiplier = row[k][r] * pivot.inverse[k];
      pivot.multiplier[r][k] = multiplier;
      const Vec factor = hn::Set(d, multiplier);
      for (int c = 0; c < kBlock; c += kLanes) {
        const Vec updated = hn::NegMulAdd(factor, hn::Load(d, row[k] + c), hn::Load(d, row[r] + c));
        hn::Store(updated, d, row[r] + c);
      }
    }
  }
  return pivot;
}

// Finishes 8 rows of U: subtracts from `source` (which may be `tile`) the product with the rows
// above, solves with the pivot block, stores U in `tile` and V = D^-1 U in strips of 8 (`scaled`,
// `scaled_stride` apart), and keeps the largest |U V| of each lane in `growth` [8].
template <int kVectors>
HWY_NOINLINE void SolveRegisterTile(int64_t depth, const double* lhs, const double* rhs,
                                    const PivotBlock& pivot, const double* source, double* tile,
                                    double* scaled, int64_t scaled_stride, double* growth) {
  const Float64 d;
  Vec rows[kBlock][kVectors];
  Accumulate<kBlock, kVectors, kBlock>(depth, lhs, rhs, rows);
#pragma GCC unroll 8
  for (int r = 0; r < kBlock; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      rows[r][v] = hn::Sub(hn::LoadU(d, source + r * kStrip + v * kLanes), rows[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 1; r < kBlock; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < r; ++q) {
      const Vec factor = hn::Set(d, pivot.multiplier[r][q]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        rows[r][v] = hn::NegMulAdd(factor, rows[q][v], rows[r][v]);
      }
    }
  }
  Vec largest = hn::Load(d, growth);
#pragma GCC unroll 8
  for (int r = 0; r < kBlock; ++r) {
    const Vec inverse = hn::Set(d, pivot.inverse[r]);
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      const Vec value = rows[r][v];
      const Vec quotient = hn::Mul(inverse, value);
      hn::StoreU(value, d, tile + r * kStrip + v * kLanes);
      hn::StoreU(quotient, d,
                 scaled + v * kLanes / kBlock * scaled_stride + r * kBlock + v * kLanes % kBlock);
      largest = hn::Max(largest, hn::Abs(hn::Mul(quotient, value)));
    }
  }
  hn::Store(largest, d, growth);
}

// The same for `columns` (8, 16 or 24) columns.
HWY_INLINE void SolveTile(int64_t depth, const double* lhs, const double* rhs,
                          const PivotBlock& pivot, const double* source, double* tile,
                          double* scaled, int64_t scaled_stride, int64_t columns, double* growth) {
  if constexpr (kSolveVectors == 3) {
    const auto solve = columns == 24   ? SolveRegisterTile<3>
                       : columns == 16 ? SolveRegisterTile<2>
                                       : SolveRegisterTile<1>;
    solve(depth, lhs, rhs, pivot, source, tile, scaled, scaled_stride, growth);
  } else {
    for (int64_t column = 0; column < columns; column += kLanes) {
      SolveRegisterTile<1>(depth, lhs, rhs + column, pivot, source + column, tile + column,
                           scaled + column / kBlock * scaled_stride + column % kBlock,
                           scaled_stride, growth);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_TILE_KERNELS_INL_H_
