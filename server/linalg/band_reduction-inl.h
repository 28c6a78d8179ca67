// Householder reduction of a symmetric matrix to block tridiagonal form. Included once per Highway
// target.
#if defined(ESS_LINALG_BAND_REDUCTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_BAND_REDUCTION_INL_H_
#undef ESS_LINALG_BAND_REDUCTION_INL_H_
#else
#define ESS_LINALG_BAND_REDUCTION_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/band_window.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/reflections-inl.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// The lower triangle of a symmetric matrix in strips of 24 columns; a strip starts at its own first
// row. Blocks of 8 x 8 on the diagonal are whole.
class LowerStrips {
 public:
  LowerStrips(double* data, int64_t size) : data_(data), size_(size) {}

  static int64_t Size(int64_t size) {
    const int64_t strips = StripCount(size);
    return kStrip * strips * size - kStrip * kStrip * strips * (strips - 1) / 2;
  }
  int64_t size() const { return size_; }
  double* At(int64_t row, int64_t column) const {
    const int64_t strip = column / kStrip;
    const int64_t start = kStrip * strip * size_ - kStrip * kStrip * strip * (strip - 1) / 2;
    return data_ + start + (row - strip * kStrip) * kStrip + column % kStrip;
  }

 private:
  double* data_;
  int64_t size_;
};

// Rows of one pass over a strip that stay in the first cache with their operands.
inline constexpr int64_t kPassRows = 32;

// Beside the square of the smallest ||H_i||_F of the window, what is below does not matter: the
// trace of a rest of G^T G, and the square of a part of one of its columns.
inline constexpr double kSmallestTrace = 1e-32;
inline constexpr double kSmallestSquare = 1e-68;
// A rest of G^T G is rounding when its trace is below this share of the whole, times the size.
inline constexpr double kRoundingTrace = 2e-16;

// Reduces the matrix panel by panel. The update of one panel waits until the next one is known, so
// that one pass over the matrix does both: subtract the old update, multiply with the new panel.
class BandReduction {
 public:
  BandReduction(const LowerStrips& matrix, const BandWindow& window, double floor_square,
                Arena& arena, WorkMeter& meter)
      : matrix_(matrix),
        window_(window),
        floor_square_(floor_square),
        size_(matrix.size()),
        meter_(meter),
        group_(size_, arena),
        product_(arena.Allocate(size_ * kBlock)),
        correction_(arena.Allocate(size_ * kBlock)),
        pairs_(arena.Allocate(size_ * 2 * kBlock)),
        opposite_(arena.Allocate(StripCount(size_) * kStrip * 2 * kBlock)) {}

  // Returns the number of rows of the band. Stops early when the meter says so.
  int64_t Run() {
    const double trace = TrailingTrace(0);
    for (int64_t row = 0; row < size_; row += kBlock) {
      SubtractPending(row);
      StoreDiagonal(row);
      const int64_t next = row + kBlock;
      if (next == size_) break;
      double* panel = group_.Panel(next);
      CopyPanel(row, panel);
      if (row % (2 * kBlock) == 0 && IsNegligible(next, panel, trace)) {
        group_.Apply(window_, meter_);
        return next;
      }
      HWY_ALIGN double weights[kBlock];
      ReflectColumns(size_ - next, kSmallestSquare * floor_square_ * floor_square_,
                     panel + next * kBlock, weights);
      TakeTriangle(panel + next * kBlock, window_.coupling + row * kBlock);
      const CompactReflections reflections(size_ - next, panel + next * kBlock, weights);
      MultiplyAndUpdate(next, panel);
      if (!meter_.status().ok()) return 0;
      MakeUpdate(next, panel, reflections);
      group_.Add(reflections);
      if (group_.full()) group_.Apply(window_, meter_);
    }
    group_.Apply(window_, meter_);
    return size_;
  }

 private:
  // Sum of the diagonal from `row` on, what is pending subtracted.
  double TrailingTrace(int64_t row) const {
    double trace = 0;
    for (int64_t i = row; i < size_; ++i) {
      double entry = *matrix_.At(i, i);
      if (pending_) {
        const double* pair = pairs_ + i / kBlock * 2 * kBlock * kBlock + i % kBlock;
        for (int64_t q = 0; q < kBlock; ++q) {
          entry -= 2 * pair[q * kBlock] * pair[(kBlock + q) * kBlock];
        }
      }
      trace += std::abs(entry);
    }
    return trace;
  }

  // Whether the matrix from `row` on, and its coupling to what is before, is at the level of
  // rounding, or far below what any position can notice.
  bool IsNegligible(int64_t row, const double* panel, double trace) const {
    const double rest = TrailingTrace(row);
    if (rest <= kSmallestTrace * floor_square_) return true;
    const double rounding = kRoundingTrace * static_cast<double>(size_) * trace;
    if (rest > rounding) return false;
    double square = 0;
    for (int64_t x = row * kBlock; x < size_ * kBlock; ++x) square += panel[x] * panel[x];
    return square <= rounding * kRoundingTrace * trace;
  }

  // Brings columns [row, row + 8) up to date.
  void SubtractPending(int64_t row) {
    if (!pending_) return;
    const double* rhs = Opposite(row);
    for (int64_t r = row; r < size_; r += kBlock) {
      double* tile = matrix_.At(r, row);
      SubtractProduct<kBlock>(2 * kBlock, Pairs(r), rhs, {tile, kStrip}, tile, kStrip, kBlock, 1.0);
    }
  }

  void StoreDiagonal(int64_t row) {
    const double* tile = matrix_.At(row, row);
    double* out = window_.diagonal + row * kBlock;
    for (int64_t r = 0; r < kBlock; ++r) {
      for (int64_t c = r; c < kBlock; ++c) {
        out[r * kBlock + c] = out[c * kBlock + r] = tile[r * kStrip + c];
      }
    }
  }

  void CopyPanel(int64_t row, double* panel) const {
    const Float64 d;
    for (int64_t r = row + kBlock; r < size_; ++r) {
      const double* from = matrix_.At(r, row);
      for (int64_t c = 0; c < kBlock; c += kLanes) {
        hn::StoreU(hn::LoadU(d, from + c), d, panel + r * kBlock + c);
      }
    }
  }

  // Subtracts what is pending from the matrix beyond `begin`, and multiplies it with the panel.
  HWY_NOINLINE void MultiplyAndUpdate(int64_t begin, const double* panel) {
    std::fill_n(product_ + begin * kBlock, (size_ - begin) * kBlock, 0.0);
    for (int64_t strip = begin / kStrip; strip * kStrip < size_; ++strip) {
      const int64_t first = std::max(begin, strip * kStrip);
      const int64_t end = std::min(size_, (strip + 1) * kStrip);
      if (!meter_.Continue(4 * kBlock * 2 * (size_ - first) * (end - first))) return;
      for (int64_t row = first; row < end; row += kBlock) {
        UpdateTile(row, first, row + kBlock);
        AddRowProducts(matrix_.At(row, first), row + kBlock - first, panel + first * kBlock,
                       product_ + row * kBlock);
        for (int64_t column = first; column < row; column += kBlock) {
          AddColumnProducts<kStrip>(kBlock, matrix_.At(row, column), panel + row * kBlock,
                                    product_ + column * kBlock);
        }
      }
      for (int64_t row = end; row < size_; row += kPassRows) {
        const int64_t last = std::min(size_, row + kPassRows);
        for (int64_t r = row; r < last; r += kBlock) UpdateTile(r, first, end);
        for (int64_t r = row; r < last; r += kBlock) {
          AddRowProducts(matrix_.At(r, first), end - first, panel + first * kBlock,
                         product_ + r * kBlock);
        }
        for (int64_t column = first; column < end; column += kBlock) {
          AddColumnProducts<kStrip>(last - row, matrix_.At(row, column), panel + row * kBlock,
                                    product_ + column * kBlock);
        }
      }
    }
  }

  void UpdateTile(int64_t row, int64_t first, int64_t end) {
    if (!pending_) return;
    double* tile = matrix_.At(row, first);
    SubtractProduct<kBlock>(2 * kBlock, Pairs(row), Opposite(first), {tile, kStrip}, tile, kStrip,
                            end - first, 1.0);
  }

  // With reflections I - V T V^T and Y = M V: M <- M - V W^T - W V^T,
  // W = Y T - V (T^T V^T Y T) / 2.
  void MakeUpdate(int64_t begin, const double* panel, const CompactReflections& reflections) {
    const int64_t rows = size_ - begin;
    const double* v = panel + begin * kBlock;
    double* y = product_ + begin * kBlock;
    double* w = correction_ + begin * kBlock;
    MultiplyRows(rows, y, reflections.triangle, nullptr, w);
    HWY_ALIGN double inner[kBlock * kBlock] = {};
    AddColumnProducts<kBlock>(rows, v, w, inner);
    HWY_ALIGN double half[kBlock * kBlock];
    for (int64_t r = 0; r < kBlock; ++r) {
      for (int64_t c = 0; c < kBlock; ++c) {
        double sum = 0;
        for (int64_t k = 0; k <= r; ++k) {
          sum += reflections.triangle[k * kBlock + r] * inner[k * kBlock + c];
        }
        half[r * kBlock + c] = -0.5 * sum;
      }
    }
    MultiplyRows(rows, v, half, w, w);
    for (int64_t row = begin; row < size_; row += kBlock) {
      TransposeBlock(panel + row * kBlock, kBlock, Pairs(row), kBlock);
      TransposeBlock(correction_ + row * kBlock, kBlock, Pairs(row) + kBlock * kBlock, kBlock);
      TransposeBlock(correction_ + row * kBlock, kBlock, Opposite(row), kStrip);
      TransposeBlock(panel + row * kBlock, kBlock, Opposite(row) + kBlock * kStrip, kStrip);
    }
    pending_ = true;
  }

  // [V | W]^T of 8 rows: [16, 8].
  double* Pairs(int64_t row) const { return pairs_ + row * 2 * kBlock; }
  // [W | V]^T from this column on, in a strip of 24: [16, 24].
  double* Opposite(int64_t column) const {
    return opposite_ + column / kStrip * kStrip * 2 * kBlock + column % kStrip;
  }

  const LowerStrips matrix_;
  const BandWindow& window_;
  const double floor_square_;
  const int64_t size_;
  WorkMeter& meter_;
  ReflectionGroup group_;
  double* product_;     // M V, [size, 8]
  double* correction_;  // W, [size, 8]
  double* pairs_;
  double* opposite_;
  bool pending_ = false;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_BAND_REDUCTION_INL_H_
