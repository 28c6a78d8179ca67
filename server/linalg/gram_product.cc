// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/gram_product.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/gram_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/row_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

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
