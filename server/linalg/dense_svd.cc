// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/dense_svd.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "server/base/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/dense_svd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/row_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Squares this small have lost digits, and a reflection made of them would not be orthogonal. The
// largest entry is about 1: such vectors are 0.
inline constexpr double kNegligibleSquare = 1e-280;

// Makes x the direction of the reflection I - 2 x x^T / |x|^2 that takes the given x to `value`
// e_0. False when x is as good as 0.
HWY_INLINE bool MakeReflection(double* x, int64_t count, double* value, double* factor) {
  const double square = DotRow(x, x, count);
  *value = 0;
  if (square < kNegligibleSquare) return false;
  *value = x[0] > 0 ? -std::sqrt(square) : std::sqrt(square);
  x[0] -= *value;
  *factor = 2 / DotRow(x, x, count);
  return true;
}

// Eliminates column k of the rows below k, and applies the reflection to the columns after k.
double EliminateColumn(double* matrix, int64_t rows, int64_t columns, int64_t k, double* x,
                       double* sums) {
  for (int64_t r = k; r < rows; ++r) x[r - k] = matrix[r * columns + k];
  double value = 0;
  double factor = 0;
  if (!MakeReflection(x, rows - k, &value, &factor)) return 0;
  const int64_t width = columns - k - 1;
  std::fill_n(sums, width, 0.0);
  double* corner = matrix + k * columns + k + 1;
  for (int64_t r = 0; r < rows - k; ++r) AddScaledRow(x[r], corner + r * columns, sums, width);
  for (int64_t r = 0; r < rows - k; ++r) {
    AddScaledRow(-factor * x[r], sums, corner + r * columns, width);
  }
  return value;
}

// The same for what row k has to the right of its first off-diagonal entry.
double EliminateRow(double* matrix, int64_t rows, int64_t columns, int64_t k) {
  double* x = matrix + k * columns + k + 1;
  const int64_t width = columns - k - 1;
  double value = 0;
  double factor = 0;
  if (!MakeReflection(x, width, &value, &factor)) return 0;
  for (int64_t r = k + 1; r < rows; ++r) {
    double* row = matrix + r * columns + k + 1;
    AddScaledRow(-factor * DotRow(x, row, width), x, row, width);
  }
  return value;
}

// diagonal [columns] and above [columns - 1] become the bidiagonal matrix.
void Bidiagonalize(double* matrix, int64_t rows, int64_t columns, double* x, double* sums,
                   double* diagonal, double* above) {
  for (int64_t k = 0; k < columns; ++k) {
    diagonal[k] = EliminateColumn(matrix, rows, columns, k, x, sums);
    if (k + 1 < columns) above[k] = EliminateRow(matrix, rows, columns, k);
  }
}

void TriangularizeOnTarget(double* matrix, int64_t rows, int64_t columns, double* x, double* sums) {
  for (int64_t k = 0; k < columns; ++k) {
    const double value = EliminateColumn(matrix, rows, columns, k, x, sums);
    for (int64_t r = k; r < rows; ++r) matrix[r * columns + k] = r == k ? value : 0;
  }
}

// The singular values of a bidiagonal matrix are the positive eigenvalues of a tridiagonal one with
// a zero diagonal and its entries beside it, whose squares are `squares`: d_0, a_0, d_1, a_1, ...
// Halves, for `lanes` neighbouring singular values at once, the interval [0, bound] that holds
// them.
inline constexpr int kChains = 4;  // Independent recurrences, which hide the latency of divisions.
inline constexpr int kHalvings = 54;

void BisectOnTarget(const double* squares, int64_t count, double bound, double* values) {
  const hn::ScalableTag<double> d;
  using Vec = hn::Vec<decltype(d)>;
  const int64_t lanes = hn::Lanes(d);
  const int64_t entries = 2 * count - 1;
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, 1.0);
  const auto tiny = hn::Set(d, -1e-290);
  for (int64_t first = 0; first < count; first += kChains * lanes) {
    Vec low[kChains], high[kChains], wanted[kChains];
    for (int c = 0; c < kChains; ++c) {
      low[c] = zero;
      high[c] = hn::Set(d, bound);
      // The value with this many below it.
      wanted[c] = hn::Iota(d, static_cast<double>(first + c * lanes));
    }
    for (int step = 0; step < kHalvings; ++step) {
      Vec middle[kChains], pivot[kChains], below[kChains];
      for (int c = 0; c < kChains; ++c) {
        middle[c] = hn::Mul(hn::Set(d, 0.5), hn::Add(low[c], high[c]));
        pivot[c] = hn::Min(hn::Neg(middle[c]), tiny);
        below[c] = hn::Set(d, static_cast<double>(1 - count));
      }
      for (int64_t k = 0; k < entries; ++k) {
        const auto square = hn::Set(d, squares[k]);
        for (int c = 0; c < kChains; ++c) {
          auto next = hn::Sub(hn::Neg(middle[c]), hn::Div(square, pivot[c]));
          next = hn::IfThenElse(hn::Gt(hn::Abs(next), hn::Neg(tiny)), next, tiny);
          below[c] = hn::Add(below[c], hn::IfThenElseZero(hn::Lt(next, zero), one));
          pivot[c] = next;
        }
      }
      for (int c = 0; c < kChains; ++c) {
        const auto is_below = hn::Gt(below[c], wanted[c]);
        high[c] = hn::IfThenElse(is_below, middle[c], high[c]);
        low[c] = hn::IfThenElse(is_below, low[c], middle[c]);
      }
    }
    for (int c = 0; c < kChains; ++c) {
      HWY_ALIGN double found[HWY_MAX_BYTES / sizeof(double)];
      hn::Store(hn::Mul(hn::Set(d, 0.5), hn::Add(low[c], high[c])), d, found);
      for (int64_t lane = 0; lane < lanes && first + c * lanes + lane < count; ++lane) {
        values[first + c * lanes + lane] = found[lane];
      }
    }
  }
}

}  // namespace
}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(Bidiagonalize);
HWY_EXPORT(TriangularizeOnTarget);
HWY_EXPORT(BisectOnTarget);

DenseMatrix Transposed(DenseMatrix matrix) {
  DenseMatrix result(matrix.columns, matrix.rows);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    for (int64_t c = 0; c < matrix.columns; ++c) result.Row(c)[r] = matrix.Row(r)[c];
  }
  return result;
}

}  // namespace

std::vector<double> DenseSingularValues(DenseMatrix matrix) {
  if (matrix.rows < matrix.columns) return DenseSingularValues(Transposed(std::move(matrix)));
  const int64_t count = matrix.columns;
  std::vector<double> values(count, 0.0);
  double largest = 0;
  for (const double entry : matrix.entries) largest = std::max(largest, std::abs(entry));
  if (largest == 0) return values;
  int exponent = 0;
  std::frexp(largest, &exponent);
  for (double& entry : matrix.entries) entry = std::ldexp(entry, -exponent);

  std::vector<double> x(matrix.rows);
  std::vector<double> sums(count);
  std::vector<double> diagonal(count);
  std::vector<double> above(count);  // The last one stays 0.
  HWY_DYNAMIC_DISPATCH(Bidiagonalize)
  (matrix.entries.data(), matrix.rows, count, x.data(), sums.data(), diagonal.data(), above.data());
  std::vector<double> squares;
  double bound = 0;  // The largest sum of a row of the tridiagonal matrix.
  for (int64_t k = 0; k < count; ++k) {
    squares.push_back(diagonal[k] * diagonal[k]);
    squares.push_back(above[k] * above[k]);
    const double before = k > 0 ? std::abs(above[k - 1]) : 0;
    bound = std::max(
        {bound, before + std::abs(diagonal[k]), std::abs(diagonal[k]) + std::abs(above[k])});
  }
  bound *= 1 + 1e-12;
  HWY_DYNAMIC_DISPATCH(BisectOnTarget)(squares.data(), count, bound, values.data());
  for (double& value : values) value = std::ldexp(value, exponent);
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

DenseMatrix TriangularFactor(DenseMatrix matrix) {
  ESS_CHECK(matrix.rows >= matrix.columns);
  std::vector<double> x(matrix.rows);
  std::vector<double> sums(matrix.columns);
  HWY_DYNAMIC_DISPATCH(TriangularizeOnTarget)
  (matrix.entries.data(), matrix.rows, matrix.columns, x.data(), sums.data());
  matrix.rows = matrix.columns;
  matrix.entries.resize(matrix.rows * matrix.columns);
  return matrix;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
