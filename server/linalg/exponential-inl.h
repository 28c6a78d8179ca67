// exp of one vector of float64. Included once per Highway target.
#if defined(ESS_LINALG_EXPONENTIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_EXPONENTIAL_INL_H_
#undef ESS_LINALG_EXPONENTIAL_INL_H_
#else
#define ESS_LINALG_EXPONENTIAL_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <iterator>

#include "hwy/highway.h"
#include "server/linalg/float64_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Between the negative of this and itself, results are normal numbers and the exponent of 2 can be
// added to their bits.
inline constexpr double kLargestQuickExponent = 700;

// x / log 2 rounded to an integer by an addition that leaves it in the last bits of the sum.
inline constexpr double kRoundingShift = 0x1.8p52;
inline constexpr double kInverseLog2 = 0x1.71547652b82fep0;
// log 2 in two parts; the first has few enough bits that its products with integers are exact.
inline constexpr double kLog2High = 0x1.62e42feep-1;
inline constexpr double kLog2Low = 0x1.a39ef35793c76p-33;

// 1 / k! from the highest on. The rest of the series is below 2e-17 for |x| <= log(2) / 2.
inline constexpr double kInverseFactorials[] = {1.0 / 6227020800,
                                                1.0 / 479001600,
                                                1.0 / 39916800,
                                                1.0 / 3628800,
                                                1.0 / 362880,
                                                1.0 / 40320,
                                                1.0 / 5040,
                                                1.0 / 720,
                                                1.0 / 120,
                                                1.0 / 24,
                                                1.0 / 6,
                                                1.0 / 2,
                                                1.0,
                                                1.0};

static HWY_NOINLINE Vec SlowExponential(Vec x) {
  HWY_ALIGN double values[kLanes];
  hn::Store(x, Float64(), values);
  for (double& value : values) value = std::exp(value);
  return hn::Load(Float64(), values);
}

// To a relative error of (2 + |x|) 2^-52; a lane's bits do not depend on the others.
HWY_INLINE Vec Exponential(Vec x) {
  const Float64 d;
  const hn::RebindToSigned<Float64> di;
  const Vec shift = hn::Set(d, kRoundingShift);
  const Vec shifted = hn::MulAdd(x, hn::Set(d, kInverseLog2), shift);
  const Vec exponent = hn::Sub(shifted, shift);
  const Vec rest = hn::NegMulAdd(exponent, hn::Set(d, kLog2Low),
                                 hn::NegMulAdd(exponent, hn::Set(d, kLog2High), x));
  Vec sum = hn::Set(d, kInverseFactorials[0]);
#pragma GCC unroll 16
  for (size_t k = 1; k < std::size(kInverseFactorials); ++k) {
    sum = hn::MulAdd(sum, rest, hn::Set(d, kInverseFactorials[k]));
  }
  const Vec quick =
      hn::BitCast(d, hn::Add(hn::BitCast(di, sum), hn::ShiftLeft<52>(hn::BitCast(di, shifted))));
  const auto in_range = hn::Le(hn::Abs(x), hn::Set(d, kLargestQuickExponent));
  if (hn::AllTrue(d, in_range)) [[likely]]
    return quick;
  return hn::IfThenElse(in_range, quick, SlowExponential(x));
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_EXPONENTIAL_INL_H_
