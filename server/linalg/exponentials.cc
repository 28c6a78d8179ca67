// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/exponentials.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/exponentials.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After foreach_target: it is compiled once per instruction set, too.
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Highway's exponential leaves its range above this, and makes 0 of a NaN.
constexpr double kLargest = 700;

constexpr size_t kMaxLanes = 8;
using Vector = hn::CappedTag<double, kMaxLanes>;

// One vector of values, in place.
void ExponentiateVector(double* values) {
  const Vector d;
  const auto x = hn::LoadU(d, values);
  const auto result = hn::Exp(d, x);
  if (hn::AllTrue(d, hn::Le(x, hn::Set(d, kLargest)))) [[likely]] {
    hn::StoreU(result, d, values);
    return;
  }
  HWY_ALIGN double in_range[kMaxLanes];
  hn::StoreU(result, d, in_range);
  for (size_t lane = 0; lane < hn::Lanes(d); ++lane) {
    values[lane] = values[lane] <= kLargest ? in_range[lane] : std::exp(values[lane]);
  }
}

void ExponentiateOnTarget(double* values, size_t count) {
  const Vector d;
  const size_t lanes = hn::Lanes(d);
  size_t k = 0;
  for (; k + lanes <= count; k += lanes) ExponentiateVector(values + k);
  if (k == count) return;
  HWY_ALIGN double rest[kMaxLanes] = {};
  std::copy(values + k, values + count, rest);
  ExponentiateVector(rest);
  std::copy_n(rest, count - k, values + k);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(ExponentiateOnTarget);
}  // namespace

void ExponentiateInPlace(std::span<double> values) {
  HWY_DYNAMIC_DISPATCH(ExponentiateOnTarget)(values.data(), values.size());
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
