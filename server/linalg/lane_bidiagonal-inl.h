// Singular values of one N x N matrix per lane by way of its bidiagonal form: any number of counts,
// the largest one, and entropies. Nothing is squared before it is bidiagonal, so even the small
// singular values are right to about 1e-15 of the largest. Included once per Highway target.
#if defined(ESS_LINALG_LANE_BIDIAGONAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_BIDIAGONAL_INL_H_
#undef ESS_LINALG_LANE_BIDIAGONAL_INL_H_
#else
#define ESS_LINALG_LANE_BIDIAGONAL_INL_H_
#endif

#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Squares of numbers below are 0 to a matrix whose squares sum up to 1. Without this, reflections
// made of denormal numbers would not be orthogonal and damage the rest.
inline constexpr double kNegligibleSquare = 1e-60;
inline constexpr double kSmallestSquaredNorm = 1e-280;

// The reflection I - beta v v^T that leaves only the first of the numbers v it is made of; v[first]
// is changed. Returns the square of what is left.
HWY_INLINE Vec MakeReflector(int64_t first, int64_t last, Vec* v, Vec& beta) {
  Vec sums[2] = {Zero(), Zero()};
  for (int64_t i = first + 1; i < last; ++i) sums[i % 2] = hn::MulAdd(v[i], v[i], sums[i % 2]);
  const Vec rest = hn::Add(sums[0], sums[1]);
  const Vec head = v[first];
  const Vec square = hn::MulAdd(head, head, rest);
  const auto worthwhile = hn::Gt(rest, Broadcast(kNegligibleSquare));
  const Vec norm = hn::Sqrt(square);
  const Vec denominator = hn::MulAdd(norm, hn::Abs(head), square);
  beta = hn::IfThenElseZero(worthwhile, hn::Div(Broadcast(1.0), denominator));
  v[first] = hn::Add(head, hn::CopySign(norm, head));
  return hn::IfThenElse(worthwhile, square, hn::Mul(head, head));
}

// Columns are worked on four at a time, from the last one back.
inline constexpr int64_t kColumnGroup = 4;
HWY_INLINE int64_t FirstGroup(int64_t column) { return column / kColumnGroup * kColumnGroup; }

// weights[j] = beta v^T A[:, j] for the columns from `column` on.
HWY_INLINE void ProjectColumns(const double* matrix, int64_t size, int64_t first_row,
                               int64_t column, const Vec* v, Vec beta, Vec* weights) {
  for (int64_t group = FirstGroup(column); group < size; group += kColumnGroup) {
    Vec sum[kColumnGroup] = {Zero(), Zero(), Zero(), Zero()};
    for (int64_t row = first_row; row < size; ++row) {
#pragma GCC unroll 4
      for (int64_t c = 0; c < kColumnGroup; ++c) {
        sum[c] = hn::MulAdd(v[row], Entry(matrix, row * size + group + c), sum[c]);
      }
    }
#pragma GCC unroll 4
    for (int64_t c = 0; c < kColumnGroup; ++c) weights[group + c] = hn::Mul(beta, sum[c]);
  }
  for (int64_t j = FirstGroup(column); j < column; ++j) weights[j] = Zero();
}

// images[r] = A[r, :] u for the rows from `first_row` on; u is 0 before `column`.
HWY_INLINE void ProjectRows(const double* matrix, int64_t size, int64_t first_row, int64_t column,
                            const Vec* u, Vec* images) {
  for (int64_t row = first_row; row < size; ++row) {
    Vec sum[kColumnGroup] = {Zero(), Zero(), Zero(), Zero()};
    for (int64_t group = FirstGroup(column); group < size; group += kColumnGroup) {
#pragma GCC unroll 4
      for (int64_t c = 0; c < kColumnGroup; ++c) {
        sum[c] = hn::MulAdd(u[group + c], Entry(matrix, row * size + group + c), sum[c]);
      }
    }
    images[row] = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  }
}

// `matrix` [size, size], size a multiple of 4, is destroyed. squares[2 k] and squares[2 k + 1] get
// the squares of the bidiagonal's entries (k, k) and (k, k + 1).
HWY_INLINE void Bidiagonalize(double* matrix, int64_t size, double* squares) {
  Vec v[kMaxStates], u[kMaxStates], weights[kMaxStates], images[kMaxStates];
  for (int64_t k = 0; k < size; ++k) {
    Vec beta, gamma;
    for (int64_t row = k; row < size; ++row) v[row] = Entry(matrix, row * size + k);
    SetEntry(MakeReflector(k, size, v, beta), squares, 2 * k);
    const int64_t column = k + 1;
    if (column == size) return;
    ProjectColumns(matrix, size, k, column, v, beta, weights);

    for (int64_t j = FirstGroup(column); j < column; ++j) u[j] = Zero();
    for (int64_t j = column; j < size; ++j) {
      u[j] = hn::NegMulAdd(v[k], weights[j], Entry(matrix, k * size + j));
    }
    SetEntry(MakeReflector(column, size, u, gamma), squares, 2 * k + 1);
    Vec overlap = Zero();
    for (int64_t j = column; j < size; ++j) overlap = hn::MulAdd(weights[j], u[j], overlap);
    ProjectRows(matrix, size, column, column, u, images);

    for (int64_t row = column; row < size; ++row) {
      const Vec image = hn::Mul(gamma, hn::NegMulAdd(v[row], overlap, images[row]));
      for (int64_t group = FirstGroup(column); group < size; group += kColumnGroup) {
#pragma GCC unroll 4
        for (int64_t c = 0; c < kColumnGroup; ++c) {
          const int64_t entry = row * size + group + c;
          const Vec left = hn::NegMulAdd(v[row], weights[group + c], Entry(matrix, entry));
          SetEntry(hn::NegMulAdd(image, u[group + c], left), matrix, entry);
        }
      }
    }
  }
}

// `lower`: triangle of tiles. Fills squares [2 N - 1] of its bidiagonal form divided by its
// Frobenius norm, and squared_norm. `scratch`: N x N entries.
HWY_NOINLINE void BidiagonalizeLower(const WindowLayout& layout, const double* lower,
                                     double* scratch, double* squares, double* squared_norm) {
  const int64_t size = layout.padded_states();
  Vec sums[2] = {Zero(), Zero()};
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const Vec x = Entry(lower, LowerEntry(i, j));
      sums[j % 2] = hn::MulAdd(x, x, sums[j % 2]);
    }
  }
  const Vec total = hn::Add(sums[0], sums[1]);
  SetEntry(total, squared_norm, 0);
  const Vec scale =
      hn::Div(Broadcast(1.0), hn::Sqrt(hn::Max(total, Broadcast(kSmallestSquaredNorm))));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      const Vec x = j <= i ? hn::Mul(scale, Entry(lower, LowerEntry(i, j))) : Zero();
      SetEntry(x, scratch, i * size + j);
    }
  }
  Bidiagonalize(scratch, size, squares);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_BIDIAGONAL_INL_H_
