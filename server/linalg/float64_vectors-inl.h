// The vectors of float64 that the kernels of this folder work on: at most 8 lanes. Included once
// per Highway target.
#if defined(ESS_LINALG_FLOAT64_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_FLOAT64_VECTORS_INL_H_
#undef ESS_LINALG_FLOAT64_VECTORS_INL_H_
#else
#define ESS_LINALG_FLOAT64_VECTORS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Float64 = hn::CappedTag<double, 8>;
using Vec = hn::Vec<Float64>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(Float64()));

// Whether there are 32 registers of 8 lanes, and not 16 of fewer.
inline constexpr bool kWideRegisters = kLanes == 8;

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_FLOAT64_VECTORS_INL_H_
