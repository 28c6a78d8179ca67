// Householder reflections in panels of 8 columns, and their compact products I - V T V^T. Included
// once per Highway target.
#if defined(ESS_LINALG_REFLECTIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_REFLECTIONS_INL_H_
#undef ESS_LINALG_REFLECTIONS_INL_H_
#else
#define ESS_LINALG_REFLECTIONS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/band_window.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// out[8][8] += lhs^T rhs: lhs [depth, kLhsStride], 8 of each row are read; rhs [depth, 8].
template <int64_t kLhsStride>
HWY_NOINLINE void AddColumnProducts(int64_t depth, const double* lhs, const double* rhs,
                                    double* out) {
  const Float64 d;
  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    Vec sum[kBlock];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kBlock; ++r) sum[r] = hn::LoadU(d, out + r * kBlock + lane);
    for (int64_t k = 0; k < depth; ++k) {
      const Vec right = hn::LoadU(d, rhs + k * kBlock + lane);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kBlock; ++r) {
        sum[r] = hn::MulAdd(hn::Set(d, lhs[k * kLhsStride + r]), right, sum[r]);
      }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < kBlock; ++r) hn::StoreU(sum[r], d, out + r * kBlock + lane);
  }
}

// out[8][8] += tile rhs: tile [8, columns] in a strip of 24, rhs [columns, 8].
inline HWY_NOINLINE void AddRowProducts(const double* tile, int64_t columns, const double* rhs,
                                        double* out) {
  const Float64 d;
  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    Vec sum[kBlock];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kBlock; ++r) sum[r] = hn::LoadU(d, out + r * kBlock + lane);
    for (int64_t c = 0; c < columns; ++c) {
      const Vec right = hn::LoadU(d, rhs + c * kBlock + lane);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kBlock; ++r) {
        sum[r] = hn::MulAdd(hn::Set(d, tile[r * kStrip + c]), right, sum[r]);
      }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < kBlock; ++r) hn::StoreU(sum[r], d, out + r * kBlock + lane);
  }
}

// out = rows block (+ start): rows, start and out [count, 8], block [8, 8]. `start` may be `out`.
HWY_INLINE void MultiplyRows(int64_t count, const double* rows, const double* block,
                             const double* start, double* out) {
  const Float64 d;
  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    Vec factor[kBlock];
#pragma GCC unroll 8
    for (int64_t k = 0; k < kBlock; ++k) factor[k] = hn::LoadU(d, block + k * kBlock + lane);
    for (int64_t r = 0; r < count; ++r) {
      Vec sum = start != nullptr ? hn::LoadU(d, start + r * kBlock + lane) : hn::Zero(d);
#pragma GCC unroll 8
      for (int64_t k = 0; k < kBlock; ++k) {
        sum = hn::MulAdd(hn::Set(d, rows[r * kBlock + k]), factor[k], sum);
      }
      hn::StoreU(sum, d, out + r * kBlock + lane);
    }
  }
}

// sums[0..8) = the products of column `column` with each column, over the rows below the first
// `column` + 1.
HWY_INLINE void DotWithColumns(int64_t rows, const double* panel, int column, double* sums) {
  const Float64 d;
  for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
    Vec even = hn::Zero(d);
    Vec odd = hn::Zero(d);
    int64_t r = column + 1;
    for (; r + 1 < rows; r += 2) {
      const double* row = panel + r * kBlock;
      even = hn::MulAdd(hn::Set(d, row[column]), hn::LoadU(d, row + lane), even);
      odd = hn::MulAdd(hn::Set(d, row[kBlock + column]), hn::LoadU(d, row + kBlock + lane), odd);
    }
    if (r < rows) {
      const double* row = panel + r * kBlock;
      even = hn::MulAdd(hn::Set(d, row[column]), hn::LoadU(d, row + lane), even);
    }
    hn::StoreU(hn::Add(even, odd), d, sums + lane);
  }
}

// Triangularizes a panel [rows, 8], rows >= 8, by reflections I - weight v v^T: R is left in the
// upper triangle of the first 8 rows, each v below its 1 on the diagonal. What is below a column's
// diagonal is dropped where its sum of squares is at most `tiny`: its square may underflow, and a
// reflection made of that is not orthogonal.
inline HWY_NOINLINE void ReflectColumns(int64_t rows, double tiny, double* panel, double* weights) {
  const Float64 d;
  HWY_ALIGN double sums[kBlock];
  HWY_ALIGN double factors[kBlock] = {};
  for (int column = 0; column < kBlock; ++column) {
    DotWithColumns(rows, panel, column, sums);
    double* pivot = panel + column * kBlock;
    const double head = pivot[column];
    double scale = 0;
    weights[column] = 0;
    std::fill_n(factors, kBlock, 0.0);
    if (sums[column] > tiny) {
      const double norm = std::sqrt(head * head + sums[column]);
      const double image = head >= 0 ? -norm : norm;
      scale = 1 / (head - image);
      weights[column] = (image - head) / image;
      for (int k = column + 1; k < kBlock; ++k) {
        factors[k] = weights[column] * (pivot[k] + sums[k] * scale);
        pivot[k] -= factors[k];
      }
      pivot[column] = image;
    }
    for (int64_t r = column + 1; r < rows; ++r) {
      double* row = panel + r * kBlock;
      const double entry = row[column] * scale;
      const Vec share = hn::Set(d, entry);
      for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
        const Vec updated =
            hn::NegMulAdd(share, hn::Load(d, factors + lane), hn::LoadU(d, row + lane));
        hn::StoreU(updated, d, row + lane);
      }
      row[column] = entry;
    }
  }
}

// Moves R out of a panel, to `triangle` [8, 8], and completes V in its place.
HWY_INLINE void TakeTriangle(double* panel, double* triangle) {
  for (int r = 0; r < kBlock; ++r) {
    for (int c = 0; c < kBlock; ++c) {
      triangle[r * kBlock + c] = c >= r ? panel[r * kBlock + c] : 0;
      if (c >= r) panel[r * kBlock + c] = c == r ? 1 : 0;
    }
  }
}

// T of the 8 reflections of a panel: their product is I - V T V^T.
struct CompactReflections {
  CompactReflections(int64_t rows, const double* panel, const double* weights) {
    HWY_ALIGN double gram[kBlock * kBlock] = {};
    AddColumnProducts<kBlock>(rows, panel, panel, gram);
    for (int c = 0; c < kBlock; ++c) {
      triangle[c * kBlock + c] = weights[c];
      for (int r = 0; r < c; ++r) {
        double sum = 0;
        for (int k = r; k < c; ++k) sum += triangle[r * kBlock + k] * gram[k * kBlock + c];
        triangle[r * kBlock + c] = -weights[c] * sum;
      }
    }
  }
  HWY_ALIGN double triangle[kBlock * kBlock] = {};  // Upper.
};

// Panels whose reflections wait to be applied to the sides of a window together, which passes over
// the sides less often.
class ReflectionGroup {
 public:
  static constexpr int64_t kPanels = 4;

  ReflectionGroup(int64_t size, Arena& arena)
      : size_(size),
        panels_(arena.Allocate(kPanels * size * kBlock)),
        packed_(arena.Allocate(kPanels * size * kBlock)) {}

  static int64_t Size(int64_t size) { return 2 * kPanels * size * kBlock; }

  // Where to make the next panel [size, 8]; its rows before `begin` become zero.
  double* Panel(int64_t begin) {
    if (count_ == 0) begin_ = begin;
    double* panel = panels_ + count_ * size_ * kBlock;
    std::fill(panel + begin_ * kBlock, panel + begin * kBlock, 0.0);
    return panel;
  }
  bool full() const { return count_ == kPanels; }

  // Takes the panel that was made last into the product: T <- [T, -T V^T V_new T_new; 0, T_new].
  void Add(const CompactReflections& reflections) {
    const int64_t old = count_ * kBlock;
    const double* panel = panels_ + count_ * size_ * kBlock;
    HWY_ALIGN double products[kPanels * kBlock * kBlock] = {};
    HWY_ALIGN double scaled[kPanels * kBlock * kBlock];
    for (int64_t p = 0; p < count_; ++p) {
      AddColumnProducts<kBlock>(size_ - begin_, panels_ + (p * size_ + begin_) * kBlock,
                                panel + begin_ * kBlock, products + p * kBlock * kBlock);
    }
    MultiplyRows(old, products, reflections.triangle, nullptr, scaled);
    for (int64_t r = 0; r < old; ++r) {
      for (int64_t c = 0; c < kBlock; ++c) {
        double sum = 0;
        for (int64_t k = r; k < old; ++k) sum += triangle_[r][k] * scaled[k * kBlock + c];
        triangle_[r][old + c] = -sum;
      }
    }
    for (int64_t r = 0; r < kBlock; ++r) {
      for (int64_t c = r; c < kBlock; ++c) {
        triangle_[old + r][old + c] = reflections.triangle[r * kBlock + c];
      }
    }
    ++count_;
  }

  // sides <- (I - V T^T V^T) sides, and starts anew.
  HWY_NOINLINE void Apply(const BandWindow& window, WorkMeter& meter) {
    if (count_ == 0) return;
    for (int64_t p = 0; p < count_; ++p) {
      for (int64_t row = begin_; row < size_; row += kBlock) {
        TransposeBlock(panels_ + (p * size_ + row) * kBlock, kBlock,
                       packed_ + (row * kPanels + p * kBlock) * kBlock, kBlock);
      }
    }
    for (const bool second : {false, true}) {
      for (int64_t strip = 0; strip < window.side_strips(); ++strip) {
        if (!meter.Continue(4 * count_ * kBlock * (size_ - begin_) * kStrip)) return;
        ApplyToStrip(window.Side(second, strip), window.StripWidth(strip));
      }
    }
    count_ = 0;
  }

 private:
  void ApplyToStrip(double* strip, int64_t width) const {
    HWY_ALIGN double products[kPanels * kBlock * kStrip];
    HWY_ALIGN double shares[kPanels * kBlock * kStrip];
    for (int64_t p = 0; p < count_; ++p) {
      SubtractProduct<kBlock>(size_ - begin_, panels_ + (p * size_ + begin_) * kBlock,
                              strip + begin_ * kStrip, {}, products + p * kBlock * kStrip, kStrip,
                              width, -1.0);
    }
    const Float64 d;
    for (int64_t r = 0; r < count_ * kBlock; ++r) {
      for (int64_t c = 0; c < width; c += kLanes) {
        Vec sum = hn::Zero(d);
        for (int64_t k = 0; k <= r; ++k) {
          sum =
              hn::MulAdd(hn::Set(d, triangle_[k][r]), hn::Load(d, products + k * kStrip + c), sum);
        }
        hn::Store(sum, d, shares + r * kStrip + c);
      }
    }
    for (int64_t row = begin_; row < size_; row += kBlock) {
      double* tile = strip + row * kStrip;
      SubtractProduct<kBlock>(count_ * kBlock, packed_ + row * kPanels * kBlock, shares,
                              {tile, kStrip}, tile, kStrip, width, 1.0);
    }
  }

  const int64_t size_;
  double* const panels_;  // V of each panel, [size, 8].
  double* const packed_;  // V^T of 8 rows at a time, [8 panels, 8] each.
  int64_t begin_ = 0;
  int64_t count_ = 0;
  double triangle_[kPanels * kBlock][kPanels * kBlock];  // T, upper.
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_REFLECTIONS_INL_H_
