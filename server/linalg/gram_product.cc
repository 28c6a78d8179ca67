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

void OrthogonalizeOnTarget(const double* basis, int64_t count, double* x, int64_t size) {
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t k = 0; k < count; ++k) {
      const double* direction = basis + k * size;
      AddScaledRow(-DotRow(direction, x, size), direction, x, size);
    }
  }
}

double DotOnTarget(const double* x, const double* y, int64_t size) { return DotRow(x, y, size); }

void AddScaledOnTarget(double factor, const double* x, double* y, int64_t size) {
  AddScaledRow(factor, x, y, size);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(GramProductOnTarget);
HWY_EXPORT(OrthogonalizeOnTarget);
HWY_EXPORT(DotOnTarget);
HWY_EXPORT(AddScaledOnTarget);
}  // namespace

void GramProduct(const BlockView& block, std::span<const double> x, std::span<double> image,
                 std::span<double> result) {
  HWY_DYNAMIC_DISPATCH(GramProductOnTarget)(block, x.data(), image.data(), result.data());
}

void Orthogonalize(std::span<const double> basis, std::span<double> x) {
  const int64_t size = x.size();
  HWY_DYNAMIC_DISPATCH(OrthogonalizeOnTarget)(basis.data(), basis.size() / size, x.data(), size);
}

double Dot(std::span<const double> x, std::span<const double> y) {
  return HWY_DYNAMIC_DISPATCH(DotOnTarget)(x.data(), y.data(), x.size());
}

void AddScaled(double factor, std::span<const double> x, std::span<double> y) {
  HWY_DYNAMIC_DISPATCH(AddScaledOnTarget)(factor, x.data(), y.data(), x.size());
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
