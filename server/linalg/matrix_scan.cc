// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/matrix_scan.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/matrix_scan.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// x - x is 0 for finite x, NaN for the others, and a sum keeps a NaN.
bool AllFiniteOnTarget(const double* entries, int64_t count) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  int64_t k = 0;
  for (; k + 2 * lanes <= count; k += 2 * lanes) {
    const auto x0 = hn::LoadU(d, entries + k);
    const auto x1 = hn::LoadU(d, entries + k + lanes);
    sum0 = hn::Add(sum0, hn::Sub(x0, x0));
    sum1 = hn::Add(sum1, hn::Sub(x1, x1));
  }
  double total = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; k < count; ++k) total += entries[k] - entries[k];
  return total == 0;
}

double LargestBelowDiagonalOnTarget(const double* matrix, int64_t length) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  auto largest = hn::Zero(d);
  double rest = 0;
  for (int64_t row = 1; row < length; ++row) {
    const double* entries = matrix + row * length;
    int64_t c = 0;
    for (; c + lanes <= row; c += lanes) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(d, entries + c)));
    }
    for (; c < row; ++c) rest = std::max(rest, std::abs(entries[c]));
  }
  return std::max(rest, hn::GetLane(hn::MaxOfLanes(d, largest)));
}

void ScaleBelowDiagonalOnTarget(double factor, double* matrix, int64_t length) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  const auto factors = hn::Set(d, factor);
  for (int64_t row = 1; row < length; ++row) {
    double* entries = matrix + row * length;
    int64_t c = 0;
    for (; c + lanes <= row; c += lanes) {
      hn::StoreU(hn::Mul(factors, hn::LoadU(d, entries + c)), d, entries + c);
    }
    for (; c < row; ++c) entries[c] *= factor;
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(AllFiniteOnTarget);
HWY_EXPORT(LargestBelowDiagonalOnTarget);
HWY_EXPORT(ScaleBelowDiagonalOnTarget);

}  // namespace

bool AllFinite(std::span<const double> entries) {
  return HWY_DYNAMIC_DISPATCH(AllFiniteOnTarget)(entries.data(), entries.size());
}

double LargestBelowDiagonal(std::span<const double> matrix, int64_t length) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  return HWY_DYNAMIC_DISPATCH(LargestBelowDiagonalOnTarget)(matrix.data(), length);
}

void ScaleBelowDiagonal(double factor, std::span<double> matrix, int64_t length) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  HWY_DYNAMIC_DISPATCH(ScaleBelowDiagonalOnTarget)(factor, matrix.data(), length);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
