// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/exponentials.h"

#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/exponentials.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After foreach_target.h, whatever the order of names.
#include "hwy/contrib/math/math-inl.h"
#include "server/linalg/float64_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

void ExponentiateOnTarget(double* values, int64_t count) {
  const Float64 d;
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    hn::StoreU(hn::Exp(d, hn::LoadU(d, values + k)), d, values + k);
  }
  if (k == count) return;
  HWY_ALIGN double rest[kLanes] = {};
  for (int64_t i = k; i < count; ++i) rest[i - k] = values[i];
  hn::Store(hn::Exp(d, hn::Load(d, rest)), d, rest);
  for (int64_t i = k; i < count; ++i) values[i] = rest[i - k];
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(ExponentiateOnTarget);

}  // namespace

void Exponentiate(std::span<double> values) {
  HWY_DYNAMIC_DISPATCH(ExponentiateOnTarget)(values.data(), static_cast<int64_t>(values.size()));
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
