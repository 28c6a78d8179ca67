// Elimination of one panel: LDL^T of the pivot rows, and the products that update what is kept.
// Included once per Highway target.
#if defined(ESS_LINALG_PANEL_FACTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_PANEL_FACTOR_INL_H_
#undef ESS_LINALG_PANEL_FACTOR_INL_H_
#else
#define ESS_LINALG_PANEL_FACTOR_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "hwy/highway.h"
#include "server/linalg/tile_kernels-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

inline constexpr int64_t kDepthBlock = 256;  // Rows of the operands that stay in the cache.
inline constexpr int64_t kStripGroup = 8;    // Strips of the right operand that stay with them.
inline constexpr int64_t kFactorBlock = 64;  // Pivot rows that one left-looking step finishes.

// One term of an update: out = in - scale lhs^T rhs, the tiles that touch the lower triangle.
struct Product {
  const double* lhs;  // Strips of kLhsStride columns, [depth, kLhsStride] each.
  const double* rhs;  // Strips of 24 columns, [depth, 24] each.
  MatrixView in;      // No data: zero.
  double* out;
  int64_t out_stride;
  double scale;
};

// Stops early, with part of the result, when the meter says so.
template <int64_t kLhsStride>
HWY_NOINLINE void UpdateLower(int64_t depth, int64_t columns,
                              std::initializer_list<Product> products, WorkMeter& meter) {
  const int64_t strips = StripCount(columns);
  for (int64_t k = 0; k < depth; k += kDepthBlock) {
    const int64_t part = std::min(kDepthBlock, depth - k);
    for (int64_t group = 0; group < strips; group += kStripGroup) {
      for (int64_t row = group * kStrip; row < columns; row += kBlock) {
        const int64_t last = std::min({strips, group + kStripGroup, row / kStrip + 1});
        const int64_t tiles = (last - group) * static_cast<int64_t>(products.size());
        if (!meter.Continue(2 * kBlock * kStrip * part * tiles)) return;
        for (int64_t strip = group; strip < last; ++strip) {
          const int64_t width = std::min(kStrip, row + kBlock - strip * kStrip);
          for (const Product& product : products) {
            double* out = product.out + row * product.out_stride + strip * kStrip;
            const MatrixView in =
                k > 0 ? MatrixView{out, product.out_stride} : product.in.Block(row, strip * kStrip);
            const double* lhs = product.lhs + row / kLhsStride * kLhsStride * depth +
                                k * kLhsStride + row % kLhsStride;
            const double* rhs = product.rhs + strip * kStrip * depth + k * kStrip;
            SubtractProduct<kLhsStride>(part, lhs, rhs, in, out, product.out_stride, width,
                                        product.scale);
          }
        }
      }
    }
  }
}

// `pivots` rows of the matrix that is eliminated: [P | R1 | R2], P square and symmetric (upper
// triangle), R1 and R2 with `columns` columns each; each part starts at a strip of its own. With
// P = L D L^T, FactorPanel turns the rows into U = L^-1 [P | R1 | R2] and fills V = D^-1 U.
struct Panel {
  int64_t pivots;
  int64_t columns;
  double* u;  // Strips of 24.
  double* v;  // Strips of 8, three for each of u.

  int64_t pivot_strips() const { return StripCount(pivots); }
  int64_t side_strips() const { return StripCount(columns); }
  int64_t strips() const { return pivot_strips() + 2 * side_strips(); }
  int64_t WidthOf(int64_t strip) const {
    if (strip < pivot_strips()) return std::min(kStrip, pivots - strip * kStrip);
    return std::min(kStrip, columns - (strip - pivot_strips()) % side_strips() * kStrip);
  }
  double* U(int64_t strip) const { return u + strip * kStrip * pivots; }
  double* V(int64_t strip) const { return v + strip * kStrip * pivots; }
};

// Subtracts from rows [first, first + count) the product with all rows above `first`.
HWY_INLINE void SubtractRowsAbove(const Panel& panel, int64_t first, int64_t count,
                                  WorkMeter& meter) {
  for (int64_t strip = first / kStrip; strip < panel.strips(); ++strip) {
    const int64_t width = panel.WidthOf(strip);
    if (!meter.Continue(2 * first * count * width)) return;
    for (int64_t k = 0; k < first; k += kDepthBlock) {
      for (int64_t row = first; row < first + count; row += kBlock) {
        if (strip < panel.pivot_strips() && (strip + 1) * kStrip <= row) continue;
        double* tile = panel.U(strip) + row * kStrip;
        SubtractProduct<kBlock>(
            std::min(kDepthBlock, first - k), panel.v + row * panel.pivots + k * kBlock,
            panel.U(strip) + k * kStrip, {tile, kStrip}, tile, kStrip, width, 1.0);
      }
    }
  }
}

struct PanelResult {
  double pivot_sum = 0;
  bool singular_pivot = false;
};

// Factors 8 pivot rows from `row` on; rows above `finished` are already subtracted.
HWY_INLINE void FactorRows(const Panel& panel, int64_t row, int64_t finished, PivotSum sum,
                           double* growth, PanelResult& result) {
  const int64_t depth = row - finished;
  const double* lhs = panel.v + row * panel.pivots + finished * kBlock;
  const int64_t v_stride = kBlock * panel.pivots;
  const int64_t diagonal = row / kStrip;
  const int64_t offset = row % kStrip;
  const int64_t diagonal_width = panel.WidthOf(diagonal) - offset;
  double* tile = panel.U(diagonal) + row * kStrip + offset;
  const double* above = panel.U(diagonal) + finished * kStrip + offset;
  if (depth > 0) {
    SubtractProduct<kBlock>(depth, lhs, above, {tile, kStrip}, tile, kStrip, diagonal_width, 1.0);
  }
  const PivotBlock pivot = FactorPivotBlock(tile);
  result.pivot_sum += pivot.Sum(sum);
  result.singular_pivot |= pivot.singular;
  SolveTile(0, lhs, above, pivot, tile, tile,
            panel.V(diagonal) + offset / kBlock * v_stride + row * kBlock, v_stride, diagonal_width,
            growth);
  for (int64_t strip = diagonal + 1; strip < panel.strips(); ++strip) {
    double* below = panel.U(strip) + row * kStrip;
    SolveTile(depth, lhs, panel.U(strip) + finished * kStrip, pivot, below, below,
              panel.V(strip) + row * kBlock, v_stride, panel.WidthOf(strip), growth);
  }
}

// Left-looking LDL^T without exchanges; stops early, with part of the result, when the meter says
// so. `growth` [8] keeps the largest |U V| of each lane.
inline HWY_NOINLINE PanelResult FactorPanel(const Panel& panel, PivotSum sum, double* growth,
                                            WorkMeter& meter) {
  PanelResult result;
  for (int64_t first = 0; first < panel.pivots; first += kFactorBlock) {
    const int64_t count = std::min(kFactorBlock, panel.pivots - first);
    if (first > 0) SubtractRowsAbove(panel, first, count, meter);
    for (int64_t row = first; row < first + count; row += kBlock) {
      if (!meter.Continue(2 * kBlock * (row - first + kBlock) * kStrip * panel.strips())) break;
      FactorRows(panel, row, first, sum, growth, result);
    }
  }
  return result;
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_PANEL_FACTOR_INL_H_
