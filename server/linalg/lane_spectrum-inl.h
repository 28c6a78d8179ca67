// What the bidiagonal form of one matrix per lane, of Frobenius norm 1, tells about its singular
// values. Included once per Highway target.
//
// With squares q_1, e_1, q_2, ..., q_n of its entries, the characteristic polynomial of B B^T at x
// is u_n of
//     u_0 = v_1 = 1,   u_k = x v_k - q_k u_{k-1},   v_{k+1} = u_k - e_k v_k,
// and the signs along u_0, v_1, u_1, v_2, ..., u_n change once for each sigma^2 > x. With -x the
// terms have one sign, and det(B B^T + x) = |u_n| loses nothing.
#if defined(ESS_LINALG_LANE_SPECTRUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_SPECTRUM_INL_H_
#undef ESS_LINALG_LANE_SPECTRUM_INL_H_
#else
#define ESS_LINALG_LANE_SPECTRUM_INL_H_
#endif

#include <cmath>
#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/entropy_rule.h"
#include "server/linalg/lane_bidiagonal-inl.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Squares are compared in this range, where products of a few of them neither underflow nor
// overflow. No singular value is above 1; below 1e-15 they are rounding errors.
inline constexpr double kLeastShift = 1e-30;
inline constexpr double kLargestShift = 4;
// Steps before u and v are brought back to the size of 1.
inline constexpr int64_t kStepsBetweenScalings = 8;

using Int64 = hn::RebindToSigned<Float64>;

// counts[lane] = #{sigma > threshold}; the thresholds are in the units of the matrix before it was
// divided by its norm.
HWY_NOINLINE void CountSingularValues(int64_t size, const double* squares,
                                      const double* squared_norms, const double* thresholds,
                                      double* counts) {
  const Vec threshold = Entry(thresholds, 0);
  const Vec norm = Entry(squared_norms, 0);
  // A zero matrix has no singular value above anything.
  const Vec square =
      hn::IfThenElse(hn::Gt(norm, Broadcast(kSmallestSquaredNorm)),
                     hn::Div(hn::Mul(threshold, threshold), norm), Broadcast(kLargestShift));
  const Vec shift = hn::Min(hn::Max(square, Broadcast(kLeastShift)), Broadcast(kLargestShift));
  const Int64 di;
  auto changes = hn::Zero(di);
  const auto add_change = [&changes, di](Vec before, Vec after) {
    // -1 where the signs differ.
    changes = hn::Sub(changes, hn::ShiftRight<63>(hn::BitCast(di, hn::Xor(before, after))));
  };
  Vec u = Broadcast(1.0);
  Vec v = u;
  for (int64_t k = 0; k < size; ++k) {
    add_change(u, v);
    u = hn::NegMulAdd(Entry(squares, 2 * k), u, hn::Mul(shift, v));
    add_change(v, u);
    if (k + 1 == size) break;
    v = hn::NegMulAdd(Entry(squares, 2 * k + 1), v, u);
    if ((k + 1) % kStepsBetweenScalings == 0) {
      const Vec scale = hn::Div(Broadcast(1.0), hn::Max(hn::Abs(u), hn::Abs(v)));
      u = hn::Mul(u, scale);
      v = hn::Mul(v, scale);
    }
  }
  SetEntry(hn::ConvertTo(Float64(), changes), counts, 0);
}

// A polynomial's value and derivatives.
struct Jet {
  Vec value;
  Vec first;
  Vec second;
};

// u_n and its derivatives, up to a common factor. `above` becomes false in the lanes where some u_k
// or v_k is not positive: x is not above all singular values.
HWY_INLINE Jet Characteristic(int64_t size, const double* squares, Vec x,
                              hn::Mask<Float64>& above) {
  Jet u{Broadcast(1.0), Zero(), Zero()};
  Jet v = u;
  Vec least = u.value;
  for (int64_t k = 0; k < size; ++k) {
    const Vec q = Entry(squares, 2 * k);
    u = {hn::NegMulAdd(q, u.value, hn::Mul(x, v.value)),
         hn::NegMulAdd(q, u.first, hn::MulAdd(x, v.first, v.value)),
         hn::NegMulAdd(q, u.second, hn::MulAdd(x, v.second, hn::Add(v.first, v.first)))};
    least = hn::Min(least, u.value);
    if (k + 1 == size) break;
    const Vec e = Entry(squares, 2 * k + 1);
    v = {hn::NegMulAdd(e, v.value, u.value), hn::NegMulAdd(e, v.first, u.first),
         hn::NegMulAdd(e, v.second, u.second)};
    least = hn::Min(least, v.value);
    if ((k + 1) % kStepsBetweenScalings == 0) {
      const Vec scale = hn::Div(Broadcast(1.0), hn::Max(hn::Abs(u.value), hn::Abs(v.value)));
      for (Jet* jet : {&u, &v}) {
        *jet = {hn::Mul(jet->value, scale), hn::Mul(jet->first, scale),
                hn::Mul(jet->second, scale)};
      }
    }
  }
  above = hn::And(above, hn::Gt(least, Zero()));
  return u;
}

// Laguerre's steps from above converge to the largest root without passing it, for any polynomial
// whose roots are all real: cubically to a single one, by a constant factor to a multiple one. A
// step that passes it does so by rounding errors, and so ends there.
inline constexpr int kMaxLaguerreSteps = 200;
inline constexpr double kLaguerreAccuracy = 1e-15;

// top[lane] = the largest singular value, in the units of the matrix before it was divided by its
// norm; 0 for a zero matrix.
HWY_NOINLINE void LargestSingularValues(int64_t size, const double* squares,
                                        const double* squared_norms, double* top) {
  // sigma_1^4 <= the sum of all sigma^4, which is the sum of the squares of B B^T.
  Vec fourth_powers = Zero();
  for (int64_t k = 0; k < size; ++k) {
    const Vec e = k + 1 < size ? Entry(squares, 2 * k + 1) : Zero();
    const Vec diagonal = hn::Add(Entry(squares, 2 * k), e);
    fourth_powers = hn::MulAdd(diagonal, diagonal, fourth_powers);
    if (k + 1 == size) break;
    const Vec below = hn::Mul(e, Entry(squares, 2 * k + 2));
    fourth_powers = hn::Add(fourth_powers, hn::Add(below, below));
  }
  const auto empty = hn::Not(hn::Gt(Entry(squared_norms, 0), Broadcast(kSmallestSquaredNorm)));
  Vec x =
      hn::Mul(hn::Sqrt(hn::IfThenElse(empty, Broadcast(1.0), fourth_powers)), Broadcast(1 + 1e-14));
  const Vec degree = Broadcast(static_cast<double>(size));
  const Vec degree_less_1 = Broadcast(static_cast<double>(size - 1));
  auto active = hn::Not(empty);
  for (int step = 0; step < kMaxLaguerreSteps && !hn::AllFalse(Float64(), active); ++step) {
    const Jet p = Characteristic(size, squares, x, active);
    const Vec g = hn::Div(p.first, p.value);
    const Vec h = hn::NegMulAdd(hn::Div(p.second, p.value), Broadcast(1.0), hn::Mul(g, g));
    const Vec inside = hn::Mul(degree_less_1, hn::MulSub(degree, h, hn::Mul(g, g)));
    const Vec denominator = hn::Add(g, hn::Sqrt(hn::Max(inside, Zero())));
    const Vec move = hn::Div(degree, denominator);
    active = hn::And(active, hn::Gt(move, hn::Mul(x, Broadcast(kLaguerreAccuracy))));
    x = hn::Sub(x, hn::IfThenElseZero(active, move));
  }
  const Vec sigma = hn::Mul(hn::Sqrt(x), hn::Sqrt(Entry(squared_norms, 0)));
  SetEntry(hn::IfThenElseZero(hn::Not(empty), sigma), top, 0);
}

// Steps after which the logarithm is taken: |u| >= t^2 each, and t >= 1e-8.
inline constexpr int64_t kStepsBetweenLogarithms = 16;

// log det(B B^T + t^2) for kTogether shifts t at once.
template <int kTogether>
HWY_INLINE void LogDeterminants(int64_t size, const double* squares, const EntropyNode* nodes,
                                Vec (&logs)[kTogether]) {
  Vec u[kTogether], v[kTogether], squared_shift[kTogether];
  for (int j = 0; j < kTogether; ++j) {
    u[j] = v[j] = Broadcast(1.0);
    squared_shift[j] = Broadcast(nodes[j].shift * nodes[j].shift);
    logs[j] = Zero();
  }
  for (int64_t k = 0; k < size; ++k) {
    const Vec q = Entry(squares, 2 * k);
    const Vec e = k + 1 < size ? Entry(squares, 2 * k + 1) : Zero();
#pragma GCC unroll 4
    for (int j = 0; j < kTogether; ++j) {
      u[j] = hn::MulAdd(q, u[j], hn::Mul(squared_shift[j], v[j]));
      v[j] = hn::MulAdd(e, v[j], u[j]);
    }
    if ((k + 1) % kStepsBetweenLogarithms == 0 && k + 1 < size) {
      for (int j = 0; j < kTogether; ++j) {
        logs[j] = hn::Add(logs[j], hn::Log(Float64(), u[j]));
        v[j] = hn::Div(v[j], u[j]);
        u[j] = Broadcast(1.0);
      }
    }
  }
  for (int j = 0; j < kTogether; ++j) logs[j] = hn::Add(logs[j], hn::Log(Float64(), u[j]));
}

// log t_j.
struct EntropyLogShifts {
  EntropyLogShifts() {
    for (int j = 0; j < static_cast<int>(kEntropyShifts); ++j) {
      values[j] = std::log(kEntropyRule[j].shift);
    }
  }
  double values[kEntropyShifts];
};

struct EntropySums {
  Vec sum;
  Vec product;

  HWY_INLINE void Add(const EntropyWeights& weights, Vec value) {
    sum = hn::MulAdd(Broadcast(weights.sum), value, sum);
    product = hn::MulAdd(Broadcast(weights.product), value, product);
  }
  HWY_INLINE Vec Entropy() const {
    const Float64 d;
    return hn::Exp(d, hn::Sub(hn::Log(d, sum), hn::Div(product, sum)));
  }
};

// entropies[lane] = exp(-sum p ln p), and the largest relative change that the other weights make;
// 0 for a zero matrix.
HWY_NOINLINE void Entropies(int64_t size, const double* squares, const double* squared_norms,
                            double* entropies, double* changes) {
  constexpr int kTogether = 4;
  static_assert(kEntropyShifts % kTogether == 0);
  // Not at namespace scope, where this target's code would run on every machine at its start.
  static const EntropyLogShifts log_shifts;
  EntropySums all{Zero(), Zero()};
  EntropySums without_first = all;
  EntropySums without_last = all;
  for (int first = 0; first < kEntropyShifts; first += kTogether) {
    Vec logs[kTogether];
    LogDeterminants<kTogether>(size, squares, &kEntropyRule[first], logs);
    for (int j = 0; j < kTogether; ++j) {
      const EntropyNode& node = kEntropyRule[first + j];
      const Vec log_share =
          hn::Sub(logs[j], Broadcast(2 * static_cast<double>(size) * log_shifts.values[first + j]));
      all.Add(node.all, log_share);
      without_first.Add(node.without_first, log_share);
      without_last.Add(node.without_last, log_share);
    }
  }
  const EntropyNode& norm = kEntropyRule[kEntropyShifts];
  all.Add(norm.all, Broadcast(1.0));
  without_first.Add(norm.without_first, Broadcast(1.0));
  without_last.Add(norm.without_last, Broadcast(1.0));
  const Vec entropy = all.Entropy();
  const Vec change = hn::Max(hn::Abs(hn::Sub(entropy, without_first.Entropy())),
                             hn::Abs(hn::Sub(entropy, without_last.Entropy())));
  const auto counts = hn::Gt(Entry(squared_norms, 0), Broadcast(kSmallestSquaredNorm));
  SetEntry(hn::IfThenElseZero(counts, entropy), entropies, 0);
  SetEntry(hn::IfThenElseZero(counts, hn::Div(change, entropy)), changes, 0);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_SPECTRUM_INL_H_
