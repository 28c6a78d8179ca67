// Dot products and scaled sums of rows of any length. Included once per Highway target.
#if defined(ESS_LINALG_ROW_KERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_ROW_KERNELS_INL_H_
#undef ESS_LINALG_ROW_KERNELS_INL_H_
#else
#define ESS_LINALG_ROW_KERNELS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Four sums hide the latency of the additions.
HWY_INLINE double DotRow(const double* x, const double* y, int64_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  int64_t k = 0;
  for (; k + 4 * lanes <= count; k += 4 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, x + k), hn::LoadU(d, y + k), sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, x + k + lanes), hn::LoadU(d, y + k + lanes), sum1);
    sum2 = hn::MulAdd(hn::LoadU(d, x + k + 2 * lanes), hn::LoadU(d, y + k + 2 * lanes), sum2);
    sum3 = hn::MulAdd(hn::LoadU(d, x + k + 3 * lanes), hn::LoadU(d, y + k + 3 * lanes), sum3);
  }
  for (; k + lanes <= count; k += lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, x + k), hn::LoadU(d, y + k), sum0);
  }
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; k < count; ++k) total += x[k] * y[k];
  return total;
}

// y += factor x
HWY_INLINE void AddScaledRow(double factor, const double* x, double* y, int64_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, factor);
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(hn::MulAdd(scale, hn::LoadU(d, x + k), hn::LoadU(d, y + k)), d, y + k);
  }
  for (; k < count; ++k) y[k] += factor * x[k];
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_ROW_KERNELS_INL_H_
