// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/small_svd.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "server/base/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/small_svd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Float64 = hn::CappedTag<double, 8>;
using Vec = hn::Vec<Float64>;

// Singular values that are bisected side by side: enough to hide the latency of divisions.
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Float64()));
inline constexpr int kVectors = 4;

// x <- the vector of the reflection I - weight x x^T that maps x to (image, 0, ...).
struct Reflection {
  double weight = 0;
  double image = 0;
};

HWY_INLINE Reflection Reflect(double* x, int64_t size) {
  double squares = 0;
  for (int64_t k = 1; k < size; ++k) squares += x[k] * x[k];
  const double head = x[0];
  x[0] = 1;
  if (!(squares > 0)) return {.weight = 0, .image = head};
  const double norm = std::sqrt(head * head + squares);
  const double image = head >= 0 ? -norm : norm;
  for (int64_t k = 1; k < size; ++k) x[k] /= head - image;
  return {.weight = (image - head) / image, .image = image};
}

// y += factor x.
HWY_INLINE void AddScaled(double factor, const double* x, double* y, int64_t size) {
  const Float64 d;
  const Vec scale = hn::Set(d, factor);
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    hn::StoreU(hn::MulAdd(scale, hn::LoadU(d, x + k), hn::LoadU(d, y + k)), d, y + k);
  }
  for (; k < size; ++k) y[k] += factor * x[k];
}

// y += factor x, then the product of y and z.
HWY_INLINE double AddScaledAndDot(double factor, const double* x, double* y, const double* z,
                                  int64_t size) {
  const Float64 d;
  const Vec scale = hn::Set(d, factor);
  Vec sum = hn::Zero(d);
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    const Vec value = hn::MulAdd(scale, hn::LoadU(d, x + k), hn::LoadU(d, y + k));
    hn::StoreU(value, d, y + k);
    sum = hn::MulAdd(value, hn::LoadU(d, z + k), sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; k < size; ++k) {
    y[k] += factor * x[k];
    total += y[k] * z[k];
  }
  return total;
}

void BidiagonalizeOnTarget(double* matrix, int64_t size, Bidiagonal& result) {
  std::vector<double> left(size);
  std::vector<double> right(size, 0.0);
  std::vector<double> sums(size, 0.0);      // Of rows, weighted by `left`.
  std::vector<double> products(size, 0.0);  // Of rows with `right`: the update that is still due.
  for (int64_t k = 0; k < size; ++k) {
    const int64_t rest = size - k;
    double* corner = matrix + k * (size + 1);
    // The last row reflection is due on all rows from k on, whose columns from k on are left.
    for (int64_t r = 0; r < rest; ++r) {
      left[r] = corner[r * size] - products[r] * right[0];
    }
    const Reflection column = Reflect(left.data(), rest);
    result.diagonal[k] = column.image;
    if (rest == 1) return;
    std::fill_n(sums.begin(), rest, 0.0);
    for (int64_t r = 0; r < rest; ++r) {
      AddScaled(-products[r], right.data(), corner + r * size, rest);
      AddScaled(left[r], corner + r * size, sums.data(), rest);
    }
    AddScaled(-column.weight, sums.data(), corner, rest);
    std::copy_n(corner + 1, rest - 1, right.begin());
    const Reflection row = Reflect(right.data(), rest - 1);
    result.above[k] = row.image;
    for (int64_t r = 1; r < rest; ++r) {
      products[r - 1] = row.weight * AddScaledAndDot(-column.weight * left[r], sums.data() + 1,
                                                     corner + r * size + 1, right.data(), rest - 1);
    }
  }
}

// counts[v] = how many singular values are above x[v], lane by lane: the negative pivots of the
// tridiagonal matrix of 2 n rows with diagonal x and the entries of the bidiagonal beside it, whose
// eigenvalues are x plus and minus the singular values. `squares`: of those entries.
HWY_INLINE void SturmCounts(const std::vector<double>& squares, double smallest,
                            const Vec (&x)[kVectors], Vec (&counts)[kVectors]) {
  const Float64 d;
  const Vec zero = hn::Zero(d);
  const Vec one = hn::Set(d, 1.0);
  const Vec tiny = hn::Set(d, smallest);
  Vec pivot[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    pivot[v] = hn::Max(x[v], tiny);
    counts[v] = zero;
  }
  for (const double square : squares) {
    const Vec factor = hn::Set(d, square);
    for (int v = 0; v < kVectors; ++v) {
      Vec next = hn::Sub(x[v], hn::Div(factor, pivot[v]));
      next = hn::IfThenElse(hn::Lt(hn::Abs(next), tiny), hn::Neg(tiny), next);
      counts[v] = hn::Add(counts[v], hn::IfThenElseZero(hn::Lt(next, zero), one));
      pivot[v] = next;
    }
  }
}

std::vector<double> Squares(const Bidiagonal& matrix) {
  std::vector<double> squares;
  for (size_t k = 0; k < matrix.diagonal.size(); ++k) {
    if (k > 0) squares.push_back(matrix.above[k - 1] * matrix.above[k - 1]);
    squares.push_back(matrix.diagonal[k] * matrix.diagonal[k]);
  }
  return squares;
}

int64_t CountAboveOnTarget(const Bidiagonal& matrix, double threshold) {
  const Float64 d;
  Vec x[kVectors];
  for (Vec& lane : x) lane = hn::Set(d, threshold);
  Vec counts[kVectors];
  SturmCounts(Squares(matrix), 1e-280 * matrix.bound * matrix.bound, x, counts);
  return static_cast<int64_t>(hn::GetLane(counts[0]));
}

void LargestOnTarget(const Bidiagonal& matrix, std::span<double> values) {
  const Float64 d;
  constexpr int64_t kBatch = kVectors * kLanes;
  constexpr int kHalvings = 54;
  const std::vector<double> squares = Squares(matrix);
  const int64_t count = values.size();
  for (int64_t first = 0; first < count; first += kBatch) {
    Vec low[kVectors];
    Vec high[kVectors];
    Vec wanted[kVectors];  // At least so many are above `low`.
    for (int v = 0; v < kVectors; ++v) {
      low[v] = hn::Zero(d);
      high[v] = hn::Set(d, matrix.bound);
      wanted[v] = hn::Iota(d, static_cast<double>(first + v * kLanes + 1));
    }
    for (int step = 0; step < kHalvings; ++step) {
      Vec middle[kVectors];
      Vec counts[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        middle[v] = hn::Mul(hn::Set(d, 0.5), hn::Add(low[v], high[v]));
      }
      SturmCounts(squares, 1e-280 * matrix.bound * matrix.bound, middle, counts);
      for (int v = 0; v < kVectors; ++v) {
        const auto above = hn::Ge(counts[v], wanted[v]);
        low[v] = hn::IfThenElse(above, middle[v], low[v]);
        high[v] = hn::IfThenElse(above, high[v], middle[v]);
      }
    }
    HWY_ALIGN double results[kBatch];
    for (int v = 0; v < kVectors; ++v) hn::Store(low[v], d, results + v * kLanes);
    std::copy_n(results, std::min(kBatch, count - first), values.begin() + first);
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(BidiagonalizeOnTarget);
HWY_EXPORT(CountAboveOnTarget);
HWY_EXPORT(LargestOnTarget);
}  // namespace

Bidiagonal Bidiagonalize(std::vector<double>& matrix, int64_t size) {
  ESS_CHECK(size >= 1 && static_cast<int64_t>(matrix.size()) == size * size);
  Bidiagonal result{.diagonal = std::vector<double>(size), .above = std::vector<double>(size - 1)};
  HWY_DYNAMIC_DISPATCH(BidiagonalizeOnTarget)(matrix.data(), size, result);
  for (int64_t k = 0; k < size; ++k) {
    const double before = k > 0 ? std::abs(result.above[k - 1]) : 0;
    const double behind = k + 1 < size ? std::abs(result.above[k]) : 0;
    const double entry = std::abs(result.diagonal[k]);
    result.bound = std::max({result.bound, entry + before, entry + behind});
  }
  result.bound *= 1 + 1e-15;
  return result;
}

int64_t CountAbove(const Bidiagonal& matrix, double threshold) {
  if (!(threshold < matrix.bound)) return 0;
  return HWY_DYNAMIC_DISPATCH(CountAboveOnTarget)(matrix, threshold);
}

std::vector<double> LargestSingularValues(const Bidiagonal& matrix, int64_t count) {
  std::vector<double> values(count, 0.0);
  if (matrix.bound > 0) HWY_DYNAMIC_DISPATCH(LargestOnTarget)(matrix, values);
  return values;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
