// The elimination of a window's common part at one shift. Included once per Highway target.
#if defined(ESS_LINALG_BAND_ELIMINATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_BAND_ELIMINATION_INL_H_
#undef ESS_LINALG_BAND_ELIMINATION_INL_H_
#else
#define ESS_LINALG_BAND_ELIMINATION_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>

#include "hwy/highway.h"
#include "server/linalg/band_window.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// LDL^T of the band matrix N = band + shift I.
struct BandFactor {
  PivotBlock* pivots = nullptr;  // [band / 8]
  double* links = nullptr;       // [band / 8][8][8]: D^-1 L^-1 of the coupling to the next block.
  double pivot_sum = 0;
  bool singular = false;
  HWY_ALIGN double growth[kBlock] = {};

  static int64_t Size(int64_t band) {
    constexpr int64_t kPivotDoubles = (sizeof(PivotBlock) + sizeof(double) - 1) / sizeof(double);
    return Arena::Rounded(band / kBlock * kPivotDoubles) + band * kBlock;
  }

  BandFactor(const BandWindow& window, double shift, PivotSum sum, Arena& arena) {
    const int64_t blocks = window.band / kBlock;
    double* memory = arena.Allocate(Size(window.band));
    links = memory;
    pivots = reinterpret_cast<PivotBlock*>(memory + window.band * kBlock);
    HWY_ALIGN double tile[kBlock * kStrip];
    HWY_ALIGN double next[kBlock * kStrip];
    for (int64_t k = 0; k < blocks; ++k) {
      const double* diagonal = window.diagonal + k * kBlock * kBlock;
      for (int64_t r = 0; r < kBlock; ++r) {
        std::copy_n(diagonal + r * kBlock, kBlock, tile + r * kStrip);
        tile[r * kStrip + r] += shift;
      }
      if (k > 0) {
        SubtractProduct<kBlock>(kBlock, links + (k - 1) * kBlock * kBlock, next, {tile, kStrip},
                                tile, kStrip, kBlock, 1.0);
      }
      const PivotBlock& pivot = *new (pivots + k) PivotBlock(FactorPivotBlock(tile));
      pivot_sum += pivot.Sum(sum);
      singular |= pivot.singular;
      if (k + 1 == blocks) break;
      const double* coupling = window.coupling + k * kBlock * kBlock;
      for (int64_t r = 0; r < kBlock; ++r) {
        for (int64_t c = 0; c < kBlock; ++c) next[r * kStrip + c] = coupling[c * kBlock + r];
      }
      SolveTile(0, next, next, pivot, next, next, links + k * kBlock * kBlock, 0, kBlock, growth);
    }
  }
};

// Columns [begin, end) of P or Q, solved: U = L^-1 side and V = D^-1 U, of all columns' strips.
struct SolvedSide {
  double* u;  // Strips of 24, [band, 24] each.
  double* v;  // Strips of 8, [band, 8] each.
  HWY_ALIGN double growth[kBlock] = {};

  SolvedSide(const BandWindow& window, bool second, int64_t begin, int64_t end,
             const BandFactor& factor, Arena& arena, WorkMeter& meter) {
    const int64_t band = window.band;
    u = arena.Allocate(window.side_strips() * kStrip * band);
    v = arena.Allocate(window.side_strips() * kStrip * band);
    for (int64_t strip = begin / kStrip; strip * kStrip < end; ++strip) {
      const int64_t offset = std::max(begin - strip * kStrip, int64_t{0});
      const int64_t columns = std::min(kStrip, end - strip * kStrip) - offset;
      if (!meter.Continue(32 * band * columns)) return;
      const double* source = window.Side(second, strip) + offset;
      double* tile = u + strip * kStrip * band + offset;
      double* scaled = v + (strip * kStrip + offset) * band;
      for (int64_t k = 0; k * kBlock < band; ++k) {
        const int64_t row = k * kBlock;
        const int64_t above = std::max(row - kBlock, int64_t{0});
        SolveTile(row - above, factor.links + above * kBlock, tile + above * kStrip,
                  factor.pivots[k], source + row * kStrip, tile + row * kStrip,
                  scaled + row * kBlock, kBlock * band, columns, growth);
      }
    }
  }
};

// out -= scale V^T U, `in` being out, on rows [row_begin, row_end) and columns [column_begin,
// column_end) where a block is on or below the diagonal.
inline HWY_NOINLINE void UpdateRegion(int64_t depth, int64_t row_begin, int64_t row_end,
                                      int64_t column_begin, int64_t column_end,
                                      const Product& product, WorkMeter& meter) {
  for (int64_t k = 0; k < depth; k += kDepthBlock) {
    const int64_t part = std::min(kDepthBlock, depth - k);
    for (int64_t row = row_begin; row < row_end; row += kBlock) {
      const int64_t end = std::min(column_end, row + kBlock);
      if (!meter.Continue(2 * kBlock * part * (end - column_begin))) return;
      for (int64_t column = column_begin; column < end;) {
        const int64_t strip = column / kStrip;
        const int64_t width = std::min((strip + 1) * kStrip, end) - column;
        double* out = product.out + row * product.out_stride + column;
        SubtractProduct<kBlock>(part, product.lhs + row * depth + k * kBlock,
                                product.rhs + strip * kStrip * depth + k * kStrip + column % kStrip,
                                {out, product.out_stride}, out, product.out_stride, width,
                                product.scale);
        column += width;
      }
    }
  }
}

// Rows [end, width) and columns [0, begin) of a node, as pivots for the positions in between.
class SurroundingPanel {
 public:
  SurroundingPanel(const TreeNode& node, int64_t begin, int64_t end, Arena& arena)
      : columns_(begin), panel_{.pivots = node.width - end + begin, .columns = end - begin} {
    panel_.u = arena.Allocate(panel_.strips() * kStrip * panel_.pivots);
    panel_.v = arena.Allocate(panel_.strips() * kStrip * panel_.pivots);
    for (int64_t x = 0; x < panel_.pivots; x += kBlock) {
      for (int64_t y = x; y < panel_.pivots; y += kBlock) {
        double* to = panel_.u + y / kStrip * kStrip * panel_.pivots + x * kStrip + y % kStrip;
        TransposeBlock(PivotBlockAt(node, end, y, x), StrideFor(node.width), to, kStrip);
      }
      for (int64_t p = 0; p < panel_.columns; p += kBlock) {
        double* row_side = SideAt(panel_.pivot_strips(), x, p);
        double* column_side = SideAt(panel_.pivot_strips() + panel_.side_strips(), x, p);
        if (x < columns_) {
          Transpose(node.b.Block(begin + p, x), row_side);
          Transpose(node.c.Block(begin + p, x), column_side);
        } else {
          const int64_t row = end + x - columns_;
          Copy(node.a.Block(row, begin + p), row_side);
          Copy(node.b.Block(row, begin + p), column_side);
        }
      }
    }
  }
  const Panel& panel() const { return panel_; }

 private:
  // Pivots are the columns, then the rows; pivot x is not behind pivot y.
  const double* PivotBlockAt(const TreeNode& node, int64_t end, int64_t y, int64_t x) const {
    const int64_t row = end + y - columns_;
    if (y < columns_) return node.c.Block(y, x).data;
    if (x < columns_) return node.b.Block(row, x).data;
    return node.a.Block(row, end + x - columns_).data;
  }
  double* SideAt(int64_t first_strip, int64_t pivot, int64_t column) const {
    return panel_.U(first_strip + column / kStrip) + pivot * kStrip + column % kStrip;
  }
  static void Transpose(MatrixView from, double* to) {
    TransposeBlock(from.data, from.stride, to, kStrip);
  }
  static void Copy(MatrixView from, double* to) {
    for (int64_t r = 0; r < kBlock; ++r) {
      std::copy_n(from.data + r * from.stride, kBlock, to + r * kStrip);
    }
  }

  const int64_t columns_;
  Panel panel_;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_BAND_ELIMINATION_INL_H_
