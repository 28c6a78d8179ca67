// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/block_sums.h"

#include <algorithm>
#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/block_sums.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// From the last row up, sums[c] gathers column c. Each step adds the row of position i, and the
// sums of the columns before i give the answer there.
void BlockSquaresOnTarget(const double* matrix, int64_t length, double* sums, double* squares) {
  const Float64 d;
  for (int64_t i = length - 1; i >= 0; --i) {
    const double* row = matrix + i * length;
    Vec total = hn::Zero(d);
    int64_t c = 0;
    for (; c + kLanes <= i; c += kLanes) {
      const Vec entry = hn::LoadU(d, row + c);
      const Vec sum = hn::MulAdd(entry, entry, hn::LoadU(d, sums + c));
      hn::StoreU(sum, d, sums + c);
      total = hn::Add(total, sum);
    }
    squares[i] = hn::GetLane(hn::SumOfLanes(d, total));
    for (; c < i; ++c) squares[i] += sums[c] += row[c] * row[c];
  }
}

// The same with absolute values, and the largest sum in place of their total.
void BlockSchurBoundsOnTarget(const double* matrix, int64_t length, double* sums, double* bounds) {
  const Float64 d;
  double largest_row = 0;
  for (int64_t i = length - 1; i >= 0; --i) {
    const double* row = matrix + i * length;
    Vec total = hn::Zero(d);
    Vec largest = hn::Zero(d);
    int64_t c = 0;
    for (; c + kLanes <= i; c += kLanes) {
      const Vec entry = hn::Abs(hn::LoadU(d, row + c));
      const Vec sum = hn::Add(entry, hn::LoadU(d, sums + c));
      hn::StoreU(sum, d, sums + c);
      total = hn::Add(total, entry);
      largest = hn::Max(largest, sum);
    }
    double row_sum = hn::GetLane(hn::SumOfLanes(d, total));
    double largest_column = hn::GetLane(hn::MaxOfLanes(d, largest));
    for (; c < i; ++c) {
      row_sum += std::abs(row[c]);
      largest_column = std::max(largest_column, sums[c] += std::abs(row[c]));
    }
    largest_row = std::max(largest_row, row_sum);
    bounds[i] = std::sqrt(largest_column * largest_row);
  }
}

// The same with sums[c] = (H_i^T y)[c].
void LeftProductSquaresOnTarget(const double* matrix, int64_t length, const double* y,
                                int64_t count, double* sums, double* squares) {
  const Float64 d;
  for (int64_t k = count - 1; k >= 0; --k) {
    const int64_t i = length - count + k;
    const double* row = matrix + i * length;
    const Vec weight = hn::Set(d, y[k]);
    Vec total = hn::Zero(d);
    int64_t c = 0;
    for (; c + kLanes <= i; c += kLanes) {
      const Vec sum = hn::MulAdd(weight, hn::LoadU(d, row + c), hn::LoadU(d, sums + c));
      hn::StoreU(sum, d, sums + c);
      total = hn::MulAdd(sum, sum, total);
    }
    squares[k] = hn::GetLane(hn::SumOfLanes(d, total));
    for (; c < i; ++c) {
      sums[c] += y[k] * row[c];
      squares[k] += sums[c] * sums[c];
    }
  }
}

// products[r] = sum over c < columns of T[row + r, c] x[c], for 8 rows side by side; each partial
// sum goes, squared, to the lanes of its column's position. `columns` is a multiple of 8.
void AddPrefixSquares(const double* rows, int64_t stride, const double* x, int64_t columns,
                      double* lanes, double* products) {
  const Float64 d;
  HWY_ALIGN double block[kBlock * kBlock];
  std::fill_n(products, kBlock, 0.0);
  for (int64_t first = 0; first < columns; first += kBlock) {
    TransposeBlock(rows + first, stride, block, kBlock);
    for (int64_t c = 0; c < kBlock; ++c) {
      double* position = lanes + (first + c + 1) * kBlock;
      const Vec weight = hn::Set(d, x[first + c]);
      for (int64_t r = 0; r < kBlock; r += kLanes) {
        const Vec product =
            hn::MulAdd(weight, hn::Load(d, block + c * kBlock + r), hn::Load(d, products + r));
        hn::Store(product, d, products + r);
        hn::StoreU(hn::MulAdd(product, product, hn::LoadU(d, position + r)), d, position + r);
      }
    }
  }
}

void RightProductSquaresOnTarget(const double* matrix, int64_t length, const double* x,
                                 int64_t count, double* lanes, double* squares) {
  for (int64_t first = 0; first < length; first += kBlock) {
    const int64_t rows = std::min(kBlock, length - first);
    HWY_ALIGN double products[kBlock] = {};
    const int64_t whole = rows == kBlock ? std::min(first, count / kBlock * kBlock) : 0;
    if (whole > 0) {
      AddPrefixSquares(matrix + first * length, length, x, whole, lanes, products);
    }
    for (int64_t r = 0; r < rows; ++r) {
      double product = products[r];
      for (int64_t c = whole; c < std::min(first + r, count); ++c) {
        product += matrix[(first + r) * length + c] * x[c];
        lanes[(c + 1) * kBlock + r] += product * product;
      }
    }
  }
  for (int64_t i = 0; i <= count; ++i) {
    squares[i] = 0;
    for (int64_t r = 0; r < kBlock; ++r) squares[i] += lanes[i * kBlock + r];
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(BlockSquaresOnTarget);
HWY_EXPORT(BlockSchurBoundsOnTarget);
HWY_EXPORT(LeftProductSquaresOnTarget);
HWY_EXPORT(RightProductSquaresOnTarget);

}  // namespace

void BlockSquares(std::span<const double> matrix, int64_t length, std::span<double> squares) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  ESS_CHECK(static_cast<int64_t>(squares.size()) == length);
  std::vector<double> sums(length, 0.0);
  HWY_DYNAMIC_DISPATCH(BlockSquaresOnTarget)(matrix.data(), length, sums.data(), squares.data());
}

void BlockSchurBounds(std::span<const double> matrix, int64_t length, std::span<double> bounds) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  ESS_CHECK(static_cast<int64_t>(bounds.size()) == length);
  std::vector<double> sums(length, 0.0);
  HWY_DYNAMIC_DISPATCH(BlockSchurBoundsOnTarget)
  (matrix.data(), length, sums.data(), bounds.data());
}

void RightProductSquares(std::span<const double> matrix, int64_t length, std::span<const double> x,
                         std::span<double> squares) {
  const int64_t count = x.size();
  ESS_CHECK(count < length && static_cast<int64_t>(squares.size()) == count + 1);
  std::vector<double> lanes((count + 1) * kBlock, 0.0);
  HWY_DYNAMIC_DISPATCH(RightProductSquaresOnTarget)
  (matrix.data(), length, x.data(), count, lanes.data(), squares.data());
}

void LeftProductSquares(std::span<const double> matrix, int64_t length, std::span<const double> y,
                        std::span<double> squares) {
  const int64_t count = y.size();
  ESS_CHECK(count <= length && squares.size() == y.size());
  std::vector<double> sums(length, 0.0);
  HWY_DYNAMIC_DISPATCH(LeftProductSquaresOnTarget)
  (matrix.data(), length, y.data(), count, sums.data(), squares.data());
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
