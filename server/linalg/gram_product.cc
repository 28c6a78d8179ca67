// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/gram_product.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/gram_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Four sums hide the latency of the additions.
double DotRow(const double* x, const double* y, int64_t count) {
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
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; k < count; ++k) total += x[k] * y[k];
  return total;
}

void AddScaledRow(double factor, const double* x, double* y, int64_t count) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, factor);
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(hn::MulAdd(scale, hn::LoadU(d, x + k), hn::LoadU(d, y + k)), d, y + k);
  }
  for (; k < count; ++k) y[k] += factor * x[k];
}

void GramProductOnTarget(const BlockView& block, const double* x, double* image, double* result) {
  std::fill_n(result, block.columns, 0.0);
  for (int64_t row = 0; row < block.rows; ++row) {
    const double* entries = block.data + row * block.stride;
    image[row] = DotRow(entries, x, block.columns);
    AddScaledRow(image[row], entries, result, block.columns);
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(GramProductOnTarget);
}  // namespace

void GramProduct(const BlockView& block, std::span<const double> x, std::span<double> image,
                 std::span<double> result) {
  HWY_DYNAMIC_DISPATCH(GramProductOnTarget)(block, x.data(), image.data(), result.data());
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
