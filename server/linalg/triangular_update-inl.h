// The QR update of a square-root factor: R <- the R factor of [R; F], by Householder reflections
// in panels of 8 columns (compact WY form). Included once per Highway target.
#if defined(ESS_LINALG_TRIANGULAR_UPDATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_TRIANGULAR_UPDATE_INL_H_
#undef ESS_LINALG_TRIANGULAR_UPDATE_INL_H_
#else
#define ESS_LINALG_TRIANGULAR_UPDATE_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// What is left of a column below the diagonal is dropped when its squares add up to less: numbers
// that small have lost digits, and a reflection made of them is not orthogonal. Columns are scaled
// so that this is far below their rounding (square_root_factor.cc).
inline constexpr double kSmallestSquares = 1e-280;

// R, upper triangular [states, states] with zeros below the diagonal, and the rows F below it
// [rows, states] in strips of 24. States and rows are multiples of 8.
struct TriangularUpdate {
  int64_t states;
  int64_t rows;
  double* factor;
  int64_t stride;  // Of `factor`.
  double* below;   // Destroyed.
  double* panel;   // Scratch, 8 x rows.

  double* Below(int64_t column) const {
    return below + column / kStrip * kStrip * rows + column % kStrip;
  }
};

// Q^T = I - V T^T V^T for the 8 reflections of a panel, V having I on top of what is in `below`.
struct ReflectionBlock {
  double weight[kBlock];                           // The tau of each reflection; 0: none.
  HWY_ALIGN double triangle[kBlock][kBlock] = {};  // T, upper.
};

// Reflects the columns of one panel: makes the 8 x 8 block of R at `column` triangular and leaves
// the vectors in `panel` [rows / 8][column][8].
inline HWY_NOINLINE void ReflectPanel(const TriangularUpdate& update, int64_t column,
                                      ReflectionBlock& block) {
  const Float64 d;
  const int64_t size = update.rows * kBlock;
  double* corner = update.factor + column * (update.stride + 1);
  for (int k = 0; k < kBlock; ++k) {
    double* pivot = update.panel + k * kBlock;
    const int later = kBlock - k;  // Column k itself and those behind it.
    Vec sums[kBlock];
    for (int j = 0; j < kBlock; ++j) sums[j] = hn::Zero(d);
    for (int64_t b = 0; b < size; b += kBlock * kBlock) {
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        const Vec x = hn::Load(d, pivot + b + lane);
        for (int j = 0; j < later; ++j) {
          sums[j] = hn::MulAdd(x, hn::Load(d, pivot + b + j * kBlock + lane), sums[j]);
        }
      }
    }
    double* row = corner + k * update.stride + k;
    const double squares = hn::GetLane(hn::SumOfLanes(d, sums[0]));
    block.weight[k] = 0;
    if (!(squares > kSmallestSquares)) continue;
    const double head = row[0];
    const double norm = std::sqrt(head * head + squares);
    const double image = head >= 0 ? -norm : norm;
    const double scale = 1 / (head - image);
    block.weight[k] = (image - head) / image;
    row[0] = image;
    Vec factors[kBlock];
    for (int j = 1; j < later; ++j) {
      const double product = hn::GetLane(hn::SumOfLanes(d, sums[j]));
      const double share = block.weight[k] * (row[j] + scale * product);
      row[j] -= share;
      factors[j] = hn::Set(d, share);
    }
    const Vec scales = hn::Set(d, scale);
    for (int64_t b = 0; b < size; b += kBlock * kBlock) {
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        double* at = pivot + b + lane;
        const Vec x = hn::Mul(scales, hn::Load(d, at));
        hn::Store(x, d, at);
        for (int j = 1; j < later; ++j) {
          hn::Store(hn::NegMulAdd(factors[j], x, hn::Load(d, at + j * kBlock)), d, at + j * kBlock);
        }
      }
    }
  }
}

// T from V^T V (without the part of I) and the weights.
HWY_INLINE void FillTriangle(const double* gram, ReflectionBlock& block) {
  for (int c = 0; c < kBlock; ++c) {
    block.triangle[c][c] = block.weight[c];
    for (int r = 0; r < c; ++r) {
      double sum = 0;
      for (int k = r; k < c; ++k) sum += block.triangle[r][k] * gram[k * kBlock + c];
      block.triangle[r][c] = -block.weight[c] * sum;
    }
  }
}

// Applies the reflections to `width` columns at `column`, behind those of the panel at `pivot`.
HWY_INLINE void ApplyReflections(const TriangularUpdate& update, const ReflectionBlock& block,
                                 int64_t pivot, int64_t column, int64_t width) {
  const Float64 d;
  HWY_ALIGN double sums[kBlock * kStrip];
  HWY_ALIGN double shares[kBlock * kStrip];
  double* target = update.Below(column);
  double* top = update.factor + pivot * update.stride + column;
  SubtractProduct<kStrip>(update.rows, update.Below(pivot), target, {top, update.stride}, sums,
                          kStrip, width, -1.0);
  for (int64_t c = 0; c < width; c += kLanes) {
    Vec x[kBlock];
    for (int r = 0; r < kBlock; ++r) x[r] = hn::Load(d, sums + r * kStrip + c);
    for (int r = 0; r < kBlock; ++r) {
      Vec share = hn::Mul(hn::Set(d, block.triangle[0][r]), x[0]);
      for (int k = 1; k <= r; ++k) {
        share = hn::MulAdd(hn::Set(d, block.triangle[k][r]), x[k], share);
      }
      hn::Store(share, d, shares + r * kStrip + c);
      double* at = top + r * update.stride + c;
      hn::StoreU(hn::Sub(hn::LoadU(d, at), share), d, at);
    }
  }
  for (int64_t row = 0; row < update.rows; row += kBlock) {
    double* tile = target + row * kStrip;
    SubtractProduct<kBlock>(kBlock, update.panel + row * kBlock, shares, {tile, kStrip}, tile,
                            kStrip, width, 1.0);
  }
}

// Cost: about 2 rows states^2 operations. Entries and their squares must neither overflow nor
// matter when they underflow.
inline HWY_NOINLINE void UpdateTriangle(const TriangularUpdate& update) {
  for (int64_t pivot = 0; pivot < update.states; pivot += kBlock) {
    double* columns = update.Below(pivot);
    for (int64_t row = 0; row < update.rows; row += kBlock) {
      TransposeBlock(columns + row * kStrip, kStrip, update.panel + row * kBlock, kBlock);
    }
    ReflectionBlock block;
    ReflectPanel(update, pivot, block);
    if (pivot + kBlock == update.states) return;

    for (int64_t row = 0; row < update.rows; row += kBlock) {
      TransposeBlock(update.panel + row * kBlock, kBlock, columns + row * kStrip, kStrip);
    }
    HWY_ALIGN double gram[kBlock * kBlock];
    SubtractProduct<kStrip>(update.rows, columns, columns, {}, gram, kBlock, kBlock, -1.0);
    FillTriangle(gram, block);
    for (int64_t column = pivot + kBlock; column < update.states;) {
      const int64_t width = std::min(kStrip - column % kStrip, update.states - column);
      ApplyReflections(update, block, pivot, column, width);
      column += width;
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_TRIANGULAR_UPDATE_INL_H_
