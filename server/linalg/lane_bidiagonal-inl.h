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

// The reflection I - beta v v^T that leaves only the first of the numbers that v is made of.
struct Reflector {
  Vec v[kMaxStates];
  Vec beta;

  // Makes it of the numbers in v[first], ..., v[last - 1]; returns the square of what is left.
  HWY_INLINE Vec Make(int64_t first, int64_t last) {
    Vec sums[4] = {Zero(), Zero(), Zero(), Zero()};
    for (int64_t i = first + 1; i < last; ++i) sums[i % 4] = hn::MulAdd(v[i], v[i], sums[i % 4]);
    const Vec rest = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
    const Vec head = v[first];
    const Vec square = hn::MulAdd(head, head, rest);
    const auto worthwhile = hn::Gt(rest, Broadcast(kNegligibleSquare));
    const Vec norm = hn::Sqrt(square);
    const Vec denominator = hn::MulAdd(norm, hn::Abs(head), square);
    beta = hn::IfThenElseZero(worthwhile, hn::Div(Broadcast(1.0), denominator));
    v[first] = hn::Add(head, hn::CopySign(norm, head));
    return hn::IfThenElse(worthwhile, square, hn::Mul(head, head));
  }
};

// Householder bidiagonalization that updates the matrix by both reflections of a step at once:
//
//     (I - beta v v^T) A (I - gamma u u^T) = A - v weights^T - images u^T,
//     weights = beta A^T v,   images = gamma (A - v weights^T) u.
//
// A step's update is made when the next step reads the matrix, to make its own weights.
class Bidiagonalization {
 public:
  // `matrix` [size, size], size a multiple of 4, is destroyed.
  Bidiagonalization(double* matrix, int64_t size) : matrix_(matrix), size_(size) {}

  // squares[2 k] and squares[2 k + 1] get the squares of the entries (k, k) and (k, k + 1).
  HWY_INLINE void Run(double* squares) {
    for (int64_t row = 0; row < size_; ++row) left_[0].v[row] = Entry(matrix_, row * size_);
    for (int64_t k = 0; k < size_; ++k) {
      Reflector& left = left_[k % 2];
      SetEntry(left.Make(k, size_), squares, 2 * k);
      const int64_t next = k + 1;
      if (next == size_) return;
      if (k == 0) {
        ProjectColumns<false>(k);
      } else {
        ProjectColumns<true>(k);
      }
      for (int64_t j = FirstInGroup(next); j < next; ++j) right_.v[j] = weights_[j] = Zero();
      for (int64_t j = next; j < size_; ++j) {
        right_.v[j] = hn::NegMulAdd(left.v[k], weights_[j], top_row_[j]);
      }
      // All but the first element, which Make changes: this need not wait for it.
      Vec overlaps[4] = {Zero(), Zero(), Zero(), Zero()};
      for (int64_t j = next + 1; j < size_; ++j) {
        overlaps[j % 4] = hn::MulAdd(weights_[j], right_.v[j], overlaps[j % 4]);
      }
      SetEntry(right_.Make(next, size_), squares, 2 * k + 1);
      const Vec overlap =
          hn::MulAdd(weights_[next], right_.v[next],
                     hn::Add(hn::Add(overlaps[0], overlaps[1]), hn::Add(overlaps[2], overlaps[3])));
      ProjectRows(k, overlap);
      for (int64_t row = next; row < size_; ++row) {
        left_[next % 2].v[row] =
            Updated(Entry(matrix_, row * size_ + next), left.v[row], row, next);
      }
    }
  }

 private:
  static constexpr int64_t kGroup = 4;
  static int64_t FirstInGroup(int64_t index) { return index / kGroup * kGroup; }

  HWY_INLINE Vec Updated(Vec entry, Vec v, int64_t row, int64_t column) const {
    return hn::NegMulAdd(images_[row], right_.v[column], hn::NegMulAdd(v, weights_[column], entry));
  }

  // Makes the last step's update, if there is one, of the columns behind k, and the weights of
  // step k. Row k, whose part of v comes late, is the last.
  template <bool kUpdate>
  HWY_INLINE void ProjectColumns(int64_t k) {
    const Reflector& left = left_[k % 2];
    const Vec* before = left_[(k + 1) % 2].v;
    for (int64_t group = FirstInGroup(k + 1); group < size_; group += kGroup) {
      Vec sum[kGroup], w[kGroup], u[kGroup];
#pragma GCC unroll 4
      for (int64_t c = 0; c < kGroup; ++c) {
        sum[c] = Zero();
        w[c] = kUpdate ? weights_[group + c] : Zero();
        u[c] = kUpdate ? right_.v[group + c] : Zero();
      }
      const auto add_row = [&](int64_t row, Vec* copy) HWY_ATTR {
#pragma GCC unroll 4
        for (int64_t c = 0; c < kGroup; ++c) {
          const int64_t entry = row * size_ + group + c;
          Vec a = Entry(matrix_, entry);
          if constexpr (kUpdate) {
            a = hn::NegMulAdd(images_[row], u[c], hn::NegMulAdd(before[row], w[c], a));
            SetEntry(a, matrix_, entry);
          }
          if (copy != nullptr) copy[group + c] = a;
          sum[c] = hn::MulAdd(left.v[row], a, sum[c]);
        }
      };
      for (int64_t row = k + 1; row < size_; ++row) add_row(row, nullptr);
      add_row(k, top_row_);
#pragma GCC unroll 4
      for (int64_t c = 0; c < kGroup; ++c) weights_[group + c] = hn::Mul(left.beta, sum[c]);
    }
  }

  // The images of the rows behind k.
  HWY_INLINE void ProjectRows(int64_t k, Vec overlap) {
    const Vec* v = left_[k % 2].v;
    for (int64_t group = FirstInGroup(k + 1); group < size_; group += kGroup) {
      Vec sum[kGroup] = {Zero(), Zero(), Zero(), Zero()};
      // The first column, whose part of u comes late, is the last.
      for (int64_t column = size_ - 1; column > k; --column) {
#pragma GCC unroll 4
        for (int64_t r = 0; r < kGroup; ++r) {
          sum[r] =
              hn::MulAdd(right_.v[column], Entry(matrix_, (group + r) * size_ + column), sum[r]);
        }
      }
#pragma GCC unroll 4
      for (int64_t r = 0; r < kGroup; ++r) {
        images_[group + r] = hn::Mul(right_.beta, hn::NegMulAdd(v[group + r], overlap, sum[r]));
      }
    }
  }

  double* const matrix_;
  const int64_t size_;
  Reflector left_[2];  // Of even and of odd steps.
  Reflector right_;
  Vec weights_[kMaxStates];
  Vec images_[kMaxStates];
  Vec top_row_[kMaxStates];
};

// `lower`: triangle of tiles. Fills squares [2 N - 1] of its bidiagonal form divided by its
// Frobenius norm, and squared_norm. `scratch`: N x N entries.
HWY_NOINLINE void BidiagonalizeLower(const WindowLayout& layout, const double* lower,
                                     double* scratch, double* squares, double* squared_norm) {
  const int64_t size = layout.padded_states();
  Vec sums[4] = {Zero(), Zero(), Zero(), Zero()};
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const Vec x = Entry(lower, LowerEntry(i, j));
      sums[j % 4] = hn::MulAdd(x, x, sums[j % 4]);
    }
  }
  const Vec total = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  SetEntry(total, squared_norm, 0);
  const Vec scale =
      hn::Div(Broadcast(1.0), hn::Sqrt(hn::Max(total, Broadcast(kSmallestSquaredNorm))));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      const Vec x = j <= i ? hn::Mul(scale, Entry(lower, LowerEntry(i, j))) : Zero();
      SetEntry(x, scratch, i * size + j);
    }
  }
  Bidiagonalization(scratch, size).Run(squares);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_BIDIAGONAL_INL_H_
