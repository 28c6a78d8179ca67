// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/exponentials.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/exponentials.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After foreach_target: it is compiled once per instruction set, too.
#include "server/linalg/exponential-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

void ExponentiateOnTarget(double* values, size_t count) {
  const Float64 d;
  size_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    hn::StoreU(Exponential(hn::LoadU(d, values + k)), d, values + k);
  }
  if (k == count) return;
  HWY_ALIGN double rest[kLanes] = {};
  std::copy(values + k, values + count, rest);
  hn::Store(Exponential(hn::Load(d, rest)), d, rest);
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
