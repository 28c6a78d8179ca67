// H^T H of the blocks at the positions of a reduced window, times one vector each. Included once
// per Highway target.
#if defined(ESS_LINALG_WINDOW_OPERATOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_WINDOW_OPERATOR_INL_H_
#undef ESS_LINALG_WINDOW_OPERATOR_INL_H_
#else
#define ESS_LINALG_WINDOW_OPERATOR_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <span>

#include "hwy/highway.h"
#include "server/linalg/band_window.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// The block at row c of the window has, in the coordinates of the band, the columns [common;
// columns before c of the window] and the rows [rows of the band; rows of the window from c on]:
//
//     H^T H [v; x] = [ M v + P y + Q x      ]      y = P^T v + T_x x on rows from c on,
//                    [ Q^T v + R x + T_x^T y ]      the second part on columns before c.
class WindowOperator {
 public:
  WindowOperator(const BandWindow& window, Arena& arena) : window_(window) {
    const int64_t width = window.width;
    blocks_ = arena.Allocate(3 * kBlock * window.band);
    p_ = arena.Allocate(width * window.common);
    q_ = arena.Allocate(width * window.common);
    inside_ = arena.Allocate(width * width);
    turned_ = arena.Allocate(width * width);
    corner_ = arena.Allocate(width * width);
    PackBand();
    for (int64_t row = 0; row < window.common; row += kBlock) {
      for (int64_t j = 0; j < width; j += kBlock) {
        const int64_t at = row * width + j * kBlock;
        const int64_t from = row * kStrip + j % kStrip;
        TransposeBlock(window.Side(false, j / kStrip) + from, kStrip, p_ + at, kBlock);
        TransposeBlock(window.Side(true, j / kStrip) + from, kStrip, q_ + at, kBlock);
      }
    }
    for (int64_t r = 0; r < width; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const int64_t at = r / kBlock * kBlock * width + c * kBlock + r % kBlock;
        inside_[at] = window.inside.data[r * window.inside.stride + c];
        turned_[at] = window.inside.data[c * window.inside.stride + r];
        const int64_t low = std::max(r, c);
        corner_[at] = window.corner.data[low * window.corner.stride + std::min(r, c)];
      }
    }
  }

  static int64_t Size(int64_t common, int64_t width) {
    return 3 * kBlock * common + 2 * width * common + 3 * width * width;
  }

  int64_t rows() const { return window_.common + window_.width; }

  // out = H^T H in for the rows [first, first + columns) of the window: one column each in `in` and
  // `out`, [rows(), 24]. `first` is a multiple of 24; y: scratch, [width, 24].
  void Apply(int64_t first, int64_t columns, const double* in, double* y, double* out) const {
    const int64_t width = window_.width;
    const int64_t common = window_.common;
    const int64_t end = std::min(width, first + kStrip);  // Columns before it may matter.
    const double* x = in + common * kStrip;
    for (int64_t r = first; r < width; r += kBlock) {
      double* tile = y + r * kStrip;
      AddProduct<kStrip>(common, window_.Side(false, r / kStrip) + r % kStrip, in, {}, tile,
                         columns);
      AddProduct<kBlock>(end, inside_ + r * width, x, {tile, kStrip}, tile, columns);
      if (r < end) KeepRows(r, first, true, tile);
    }
    double* x_out = out + common * kStrip;
    for (int64_t j = 0; j < end; j += kBlock) {
      double* tile = x_out + j * kStrip;
      AddProduct<kStrip>(common, window_.Side(true, j / kStrip) + j % kStrip, in, {}, tile,
                         columns);
      AddProduct<kBlock>(end, corner_ + j * width, x, {tile, kStrip}, tile, columns);
      AddProduct<kBlock>(width - first, turned_ + j * width + first * kBlock, y + first * kStrip,
                         {tile, kStrip}, tile, columns);
      if (j >= first) KeepRows(j, first, false, tile);
    }
    std::fill(x_out + end * kStrip, x_out + width * kStrip, 0.0);
    for (int64_t row = 0; row < common; row += kBlock) {
      double* tile = out + row * kStrip;
      AddProduct<kBlock>(width - first, p_ + row * width + first * kBlock, y + first * kStrip, {},
                         tile, columns);
      AddProduct<kBlock>(end, q_ + row * width, x, {tile, kStrip}, tile, columns);
      if (row >= window_.band) continue;
      const int64_t begin = std::max(row - kBlock, int64_t{0});
      const int64_t last = std::min(row + 2 * kBlock, window_.band);
      AddProduct<kBlock>(last - begin, blocks_ + 3 * kBlock * row + (begin - row + kBlock) * kBlock,
                         in + begin * kStrip, {tile, kStrip}, tile, columns);
    }
  }

  // out = M v for the band alone: both [band].
  void ApplyBand(std::span<const double> v, std::span<double> out) const {
    const Float64 d;
    for (int64_t row = 0; row < window_.band; row += kBlock) {
      const int64_t begin = std::max(row - kBlock, int64_t{0});
      const int64_t last = std::min(row + 2 * kBlock, window_.band);
      const double* block = blocks_ + 3 * kBlock * row + (begin - row + kBlock) * kBlock;
      for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
        Vec even = hn::Zero(d);
        Vec odd = hn::Zero(d);
        for (int64_t k = 0; k < last - begin; k += 2) {
          const double* entries = block + k * kBlock + lane;
          even = hn::MulAdd(hn::Set(d, v[begin + k]), hn::LoadU(d, entries), even);
          odd = hn::MulAdd(hn::Set(d, v[begin + k + 1]), hn::LoadU(d, entries + kBlock), odd);
        }
        hn::StoreU(hn::Add(even, odd), d, out.data() + row + lane);
      }
    }
  }

 private:
  template <int64_t kLhsStride>
  static void AddProduct(int64_t depth, const double* lhs, const double* rhs, MatrixView in,
                         double* out, int64_t columns) {
    SubtractProduct<kLhsStride>(depth, lhs, rhs, in, out, kStrip, columns, -1.0);
  }

  // Clears what lies above (or on and below) the diagonal, row `row` of the window being the first
  // of the tile's 8 and `column` the first of its columns.
  static void KeepRows(int64_t row, int64_t column, bool on_and_below, double* tile) {
    for (int64_t r = 0; r < kBlock; ++r) {
      for (int64_t c = 0; c < kStrip; ++c) {
        if ((row + r >= column + c) != on_and_below) tile[r * kStrip + c] = 0;
      }
    }
  }

  // For 8 rows of M: the columns of the blocks before, on and behind the diagonal.
  void PackBand() {
    const int64_t count = window_.band / kBlock;
    for (int64_t k = 0; k < count; ++k) {
      double* block = blocks_ + 3 * k * kBlock * kBlock;
      const double* diagonal = window_.diagonal + k * kBlock * kBlock;
      const double* coupling = window_.coupling + k * kBlock * kBlock;
      for (int64_t r = 0; r < kBlock; ++r) {
        for (int64_t c = 0; c < kBlock; ++c) {
          if (k > 0) block[c * kBlock + r] = (coupling - kBlock * kBlock)[r * kBlock + c];
          block[(kBlock + c) * kBlock + r] = diagonal[r * kBlock + c];
          if (k + 1 < count) block[(2 * kBlock + c) * kBlock + r] = coupling[c * kBlock + r];
        }
      }
    }
  }

  const BandWindow& window_;
  double* blocks_;  // [band / 8][24 columns][8 rows]
  double* p_;       // [common / 8][width columns][8 rows], as the others.
  double* q_;
  double* inside_;
  double* turned_;  // The transpose of `inside`.
  double* corner_;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_WINDOW_OPERATOR_INL_H_
