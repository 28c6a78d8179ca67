// Lanczos for 24 positions side by side, a column of a strip each. Included once per Highway
// target.
#if defined(ESS_LINALG_BAND_LANCZOS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_BAND_LANCZOS_INL_H_
#undef ESS_LINALG_BAND_LANCZOS_INL_H_
#else
#define ESS_LINALG_BAND_LANCZOS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "hwy/highway.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"
#include "server/linalg/window_operator-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

inline constexpr int kMaxLanczosSteps = 100;
inline constexpr int kFirstRitzStep = 4;  // Ritz values are made there, and at every second one.
inline constexpr double kLargestResidual = 1e-6;
inline constexpr int kMaxNewtonSteps = 80;

// The tridiagonal matrices of all columns: [step][24].
struct StripTridiagonal {
  HWY_ALIGN double diagonal[kMaxLanczosSteps][kStrip];
  HWY_ALIGN double below[kMaxLanczosSteps][kStrip];
};

// The largest eigenvalue of each matrix of `size`, and the square of the last entry of its
// eigenvector, for the columns whose `active` is 1. Newton's method from above, on the logarithm of
// the determinant, which is monotone; the derivative of the last pivot is the inverse of the
// square.
HWY_INLINE void LargestRitzValues(const StripTridiagonal& t, int size, const double* active,
                                  double* values, double* last_squares) {
  const Float64 d;
  const Vec one = hn::Set(d, 1.0);
  for (int64_t lane = 0; lane < kStrip; lane += kLanes) {
    Vec x = hn::Zero(d);
    for (int k = 0; k < size; ++k) {
      Vec bound = hn::LoadU(d, t.diagonal[k] + lane);
      if (k > 0) bound = hn::Add(bound, hn::LoadU(d, t.below[k - 1] + lane));
      if (k + 1 < size) bound = hn::Add(bound, hn::LoadU(d, t.below[k] + lane));
      x = hn::Max(x, bound);
    }
    x = hn::Mul(hn::Mul(x, hn::Set(d, 1 + 1e-14)), hn::LoadU(d, active + lane));
    Vec derivative = one;
    for (int iteration = 0; iteration < kMaxNewtonSteps; ++iteration) {
      Vec pivot = hn::Sub(x, hn::LoadU(d, t.diagonal[0] + lane));
      derivative = one;
      Vec inverse = hn::Div(one, pivot);
      Vec sum = inverse;
      for (int k = 1; k < size; ++k) {
        const Vec coupling = hn::LoadU(d, t.below[k - 1] + lane);
        const Vec ratio = hn::Mul(coupling, inverse);
        pivot = hn::NegMulAdd(coupling, ratio, hn::Sub(x, hn::LoadU(d, t.diagonal[k] + lane)));
        derivative = hn::MulAdd(hn::Mul(ratio, ratio), derivative, one);
        inverse = hn::Div(one, pivot);
        sum = hn::MulAdd(derivative, inverse, sum);
      }
      const Vec step = hn::Div(one, sum);
      const Vec taken = hn::IfThenElseZero(hn::Gt(step, hn::Zero(d)), step);  // No number: none.
      x = hn::Sub(x, taken);
      if (hn::AllTrue(d, hn::Le(taken, hn::Mul(x, hn::Set(d, 2e-16))))) break;
    }
    hn::StoreU(x, d, values + lane);
    hn::StoreU(hn::Div(one, derivative), d, last_squares + lane);
  }
}

// One vector for each of the columns, and their norms.
class StripLanczos {
 public:
  StripLanczos(const WindowOperator& op, int64_t width, Arena& arena)
      : op_(op), size_(op.rows() * kStrip), y_(arena.Allocate(width * kStrip)) {
    for (double*& vector : vectors_) vector = arena.Allocate(size_);
  }
  static int64_t Size(int64_t common, int64_t width) {
    return (3 * (common + width) + width) * kStrip;
  }

  // squares[c] = sigma_1^2 at row first + c of the window; NaN where it did not converge. `start`
  // [common + width], `wanted` [columns].
  HWY_NOINLINE void Run(int64_t first, std::span<const uint8_t> wanted, int64_t common,
                        std::span<const double> start, double* squares, WorkMeter& meter) {
    const int64_t columns = static_cast<int64_t>(wanted.size());
    HWY_ALIGN double waiting[kStrip] = {};
    for (int64_t c = 0; c < columns; ++c) waiting[c] = wanted[c] != 0 ? 1 : 0;
    std::fill_n(squares, kStrip, std::numeric_limits<double>::quiet_NaN());
    Start(first, columns, common, start);
    for (int step = 1; step <= kMaxLanczosSteps; ++step) {
      if (!meter.Continue(8 * size_ * kStrip)) return;
      op_.Apply(first, columns, vectors_[1], y_, vectors_[2]);
      Advance(step - 1);
      if (step < kFirstRitzStep || step % 2 != 0) continue;
      HWY_ALIGN double values[kStrip];
      HWY_ALIGN double last_squares[kStrip];
      LargestRitzValues(t_, step, waiting, values, last_squares);
      bool all = true;
      for (int64_t c = 0; c < columns; ++c) {
        if (waiting[c] == 0) continue;
        const double residual = t_.below[step - 1][c] * std::sqrt(last_squares[c]);
        // No further step for this column: copies of a converged value would disturb Newton.
        if (residual < kLargestResidual * values[c] || IsZero(step, c)) {
          squares[c] = values[c];
          waiting[c] = 0;
        }
        all = all && waiting[c] == 0;
      }
      if (all) return;
    }
  }

 private:
  bool IsZero(int step, int64_t c) const {
    for (int k = 0; k < step; ++k) {
      if (t_.diagonal[k][c] != 0 || t_.below[k][c] != 0) return false;
    }
    return true;
  }

  void Start(int64_t first, int64_t columns, int64_t common, std::span<const double> start) {
    std::fill_n(vectors_[0], size_, 0.0);
    std::fill_n(vectors_[1], size_, 0.0);
    std::fill_n(vectors_[2], size_, 0.0);
    std::fill_n(norm_, kStrip, 0.0);
    std::fill_n(norm_before_, kStrip, 1.0);
    for (int64_t r = 0; r < size_ / kStrip; ++r) {
      for (int64_t c = std::max(int64_t{0}, r - common - first + 1); c < columns; ++c) {
        vectors_[1][r * kStrip + c] = start[r];
        norm_[c] += start[r] * start[r];
      }
    }
    for (double& norm : norm_) norm = std::sqrt(norm);
  }

  // With w of norm b in place of the unit vector w / b, and its predecessor likewise:
  // w_next = A w / b - w alpha / b - w_before b / b_before.
  void Advance(int step) {
    const Float64 d;
    for (int64_t lane = 0; lane < kStrip; lane += kLanes) {
      const double* before = vectors_[0] + lane;
      const double* now = vectors_[1] + lane;
      double* next = vectors_[2] + lane;
      Vec even = hn::Zero(d);
      Vec odd = hn::Zero(d);
      for (int64_t x = 0; x < size_; x += 2 * kStrip) {
        even = hn::MulAdd(hn::LoadU(d, now + x), hn::LoadU(d, next + x), even);
        odd = hn::MulAdd(hn::LoadU(d, now + x + kStrip), hn::LoadU(d, next + x + kStrip), odd);
      }
      const Vec norm = hn::LoadU(d, norm_ + lane);
      const Vec positive =
          hn::IfThenElseZero(hn::Gt(norm, hn::Zero(d)), hn::Div(hn::Set(d, 1.0), norm));
      const Vec alpha = hn::Mul(hn::Mul(hn::Add(even, odd), positive), positive);
      const Vec of_now = hn::Mul(alpha, positive);
      const Vec before_norm = hn::LoadU(d, norm_before_ + lane);
      const Vec of_before =
          hn::IfThenElseZero(hn::Gt(before_norm, hn::Zero(d)), hn::Div(norm, before_norm));
      even = odd = hn::Zero(d);
      for (int64_t x = 0; x < size_; x += kStrip) {
        Vec value = hn::Mul(hn::LoadU(d, next + x), positive);
        value = hn::NegMulAdd(of_now, hn::LoadU(d, now + x), value);
        value = hn::NegMulAdd(of_before, hn::LoadU(d, before + x), value);
        hn::StoreU(value, d, next + x);
        even = hn::MulAdd(value, value, even);
      }
      const Vec length = hn::Sqrt(even);
      hn::StoreU(alpha, d, t_.diagonal[step] + lane);
      hn::StoreU(length, d, t_.below[step] + lane);
      hn::StoreU(norm, d, norm_before_ + lane);
      hn::StoreU(length, d, norm_ + lane);
    }
    std::swap(vectors_[0], vectors_[1]);
    std::swap(vectors_[1], vectors_[2]);
  }

  const WindowOperator& op_;
  const int64_t size_;
  double* const y_;
  double* vectors_[3];  // [common + width, 24]: the last but one, the last, the next.
  HWY_ALIGN double norm_[kStrip];
  HWY_ALIGN double norm_before_[kStrip];
  StripTridiagonal t_;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_BAND_LANCZOS_INL_H_
