// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/local_product.h"

#include <algorithm>

#include "server/base/status_macros.h"
#include "server/linalg/lanczos.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/local_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/row_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace {

void LocalProductOnTarget(const LocalMatrix& matrix, int64_t position, int64_t rows,
                          const double* x, double* image, double* result) {
  const int64_t sinks = std::min(matrix.sinks(), position);
  const int64_t first_column = matrix.ColumnBegin(position);
  std::fill_n(result, sinks + position - first_column, 0.0);
  for (int64_t row = position; row < position + rows; ++row) {
    // Of the band, columns [begin, position).
    const int64_t begin = std::clamp(row - matrix.memory(), first_column, position);
    const int64_t count = position - begin;
    const int64_t at = sinks + begin - first_column;
    const double* band = matrix.BandRow(row) + (count > 0 ? begin - (row - matrix.memory()) : 0);
    const double* sink_row = matrix.SinkRow(row);
    const double product = DotRow(sink_row, x, sinks) + DotRow(band, x + at, count);
    image[row - position] = product;
    AddScaledRow(product, sink_row, result, sinks);
    AddScaledRow(product, band, result + at, count);
  }
}

}  // namespace
}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(LocalProductOnTarget);

int64_t RowCount(const LocalMatrix& matrix, int64_t position) {
  const int64_t end = matrix.sinks() > 0 ? matrix.length() : matrix.RowEnd(position);
  return end - position;
}

}  // namespace

void LocalProduct(const LocalMatrix& matrix, int64_t position, std::span<const double> x,
                  std::span<double> image, std::span<double> result) {
  HWY_DYNAMIC_DISPATCH(LocalProductOnTarget)
  (matrix, position, RowCount(matrix, position), x.data(), image.data(), result.data());
}

absl::StatusOr<double> LocalSpectralNorm(const LocalMatrix& matrix, int64_t position, uint64_t seed,
                                         const CancellationToken& cancellation) {
  const int64_t columns =
      std::min(matrix.sinks(), position) + position - matrix.ColumnBegin(position);
  const auto multiply = [&](std::span<const double> x, std::span<double> image,
                            std::span<double> result) {
    LocalProduct(matrix, position, x, image, result);
  };
  ESS_ASSIGN_OR_RETURN(const TopSingularValue top,
                       LargestSingularValue(RowCount(matrix, position), columns, multiply, seed,
                                            /*accuracy=*/1e-15, cancellation));
  return top.sigma;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
