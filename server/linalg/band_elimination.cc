// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/band_elimination.h"

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"
#include "server/linalg/inertia_tree_run.h"
#include "server/linalg/symmetric_inertia.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/band_elimination.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/band_elimination-inl.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// A, B and C before the band is eliminated, whole blocks of the lower triangles: what the rows
// beyond the band give, I, T_x, and -s I - Y^T Y.
HWY_INLINE void FillNode(const ShiftedWindow& shifted, double* a, double* b, double* c) {
  const BandWindow& window = shifted.window;
  const int64_t stride = StrideFor(window.width);
  const double square = shifted.scale * shifted.scale;
  const bool has_rest = !window.rest_pp.is_identity();
  const double inverse = 1 / shifted.shift;
  for (int64_t r = 0; r < window.width; ++r) {
    const int64_t row = r * stride;
    const int64_t end = (r / kBlock + 1) * kBlock;
    for (int64_t x = row; x < row + end; ++x) {
      a[x] = 0;
      b[x] = shifted.scale * window.inside.data[x];
      c[x] = -square * window.corner.data[x];
    }
    if (has_rest) {
      for (int64_t x = row; x < row + end; ++x) {
        a[x] += inverse * window.rest_pp.data[x];
        b[x] -= shifted.scale * inverse * window.rest_pq.data[x];
        c[x] += square * inverse * window.rest_qq.data[x];
      }
    }
  }
}

void EliminateBand(const ShiftedWindow& shifted, double* a, double* b, double* c, Arena& arena,
                   WorkMeter& meter, EliminatedWindow& node) {
  const BandWindow& window = shifted.window;
  const int64_t stride = StrideFor(window.width);
  const double scale = shifted.scale;
  const ArenaScope scope(arena);
  const BandFactor factor(window, shifted.shift, shifted.sum, arena);
  const SolvedSide p(window, false, shifted.begin, window.width, factor, arena, meter);
  const SolvedSide q(window, true, 0, shifted.end, factor, arena, meter);
  const Product to_a{p.v, p.u, {a, stride}, a, stride, -1.0};
  const Product to_b{p.v, q.u, {b, stride}, b, stride, scale};
  const Product to_c{q.v, q.u, {c, stride}, c, stride, -scale * scale};
  if (shifted.begin == 0 && shifted.end == window.width) {
    UpdateLower<kBlock>(window.band, window.width, {to_a, to_b, to_c}, meter);
  } else {
    const int64_t band = window.band;
    UpdateRegion(band, shifted.begin, window.width, shifted.begin, window.width, to_a, meter);
    UpdateRegion(band, shifted.begin, window.width, 0, shifted.end, to_b, meter);
    UpdateRegion(band, 0, shifted.end, 0, shifted.end, to_c, meter);
  }
  // Inertia of -N.
  node.node.pivot_sum = shifted.sum == PivotSum::kNegative
                            ? static_cast<double>(window.band) - factor.pivot_sum
                            : factor.pivot_sum;
  const double p_growth = *std::max_element(p.growth, p.growth + kBlock);
  const double q_growth = std::max(*std::max_element(q.growth, q.growth + kBlock),
                                   *std::max_element(factor.growth, factor.growth + kBlock));
  node.result = {.growth = std::max(p_growth, scale * scale * q_growth),
                 .singular_pivot = factor.singular};
}

// The node of positions [begin, end) of a node: the rest is eliminated. Its arrays stay allocated
// in `arena`.
void EliminateSurroundingsOnTarget(const ShiftedWindow& shifted, Arena& arena, WorkMeter& meter,
                                   EliminatedWindow& node) {
  const int64_t begin = shifted.begin;
  const int64_t width = shifted.end - begin;
  const int64_t size = width * StrideFor(width);
  double* a = arena.Allocate(3 * size);
  double* b = a + size;
  double* c = b + size;
  const ArenaScope scope(arena);
  const TreeNode whole = node.node;
  const SurroundingPanel surroundings(whole, begin, shifted.end, arena);
  const Panel& panel = surroundings.panel();
  HWY_ALIGN double growth[kBlock] = {};
  const PanelResult factored = FactorPanel(panel, shifted.sum, growth, meter);
  const int64_t side1 = panel.pivot_strips();
  const int64_t side2 = side1 + panel.side_strips();
  const int64_t stride = StrideFor(width);
  UpdateLower<kBlock>(
      panel.pivots, width,
      {{panel.V(side1), panel.U(side1), whole.a.Block(begin, begin), a, stride, 1.0},
       {panel.V(side1), panel.U(side2), whole.b.Block(begin, begin), b, stride, 1.0},
       {panel.V(side2), panel.U(side2), whole.c.Block(begin, begin), c, stride, 1.0}},
      meter);
  node.node = {.first_position = 0,
               .width = width,
               .a = {a, stride},
               .b = {b, stride},
               .c = {c, stride},
               .pivot_sum = whole.pivot_sum + factored.pivot_sum};
  node.result.growth = std::max(node.result.growth, *std::max_element(growth, growth + kBlock));
  node.result.singular_pivot |= factored.singular_pivot;
}

// The node of all positions; of A only rows and columns from `begin` on are made, of C those before
// `end`, of B rows and columns likewise. Its arrays stay allocated in `arena`.
EliminatedWindow EliminateCommonOnTarget(const ShiftedWindow& shifted, Arena& arena,
                                         WorkMeter& meter) {
  const BandWindow& window = shifted.window;
  const int64_t stride = StrideFor(window.width);
  double* a = arena.Allocate(window.width * stride);
  double* b = arena.Allocate(window.width * stride);
  double* c = arena.Allocate(window.width * stride);
  EliminatedWindow node{
      .node = {.width = window.width, .a = {a, stride}, .b = {b, stride}, .c = {c, stride}},
      .result = {}};
  FillNode(shifted, a, b, c);
  if (window.band > 0) EliminateBand(shifted, a, b, c, arena, meter, node);
  for (int64_t i = 0; i < window.width; ++i) {
    a[i * stride + i] += 1;
    c[i * stride + i] -= shifted.shift * shifted.scale * shifted.scale;
  }
  return node;
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(EliminateCommonOnTarget);
HWY_EXPORT(EliminateSurroundingsOnTarget);

absl::StatusOr<TreeResult> Eliminate(const ShiftedWindow& shifted, std::span<double> sums,
                                     Arena& arena, const CancellationToken& cancellation) {
  const ArenaScope scope(arena);
  WorkMeter meter(cancellation);
  EliminatedWindow node = HWY_DYNAMIC_DISPATCH(EliminateCommonOnTarget)(shifted, arena, meter);
  if (!meter.status().ok()) return meter.status();
  if (shifted.begin > 0 || shifted.end < shifted.window.width) {
    HWY_DYNAMIC_DISPATCH(EliminateSurroundingsOnTarget)(shifted, arena, meter, node);
    if (!meter.status().ok()) return meter.status();
  }
  const TreeProblem problem{.root = node.node, .sum = shifted.sum};
  ESS_ASSIGN_OR_RETURN(TreeResult result, RunTree(problem, sums, arena, cancellation));
  result.growth = std::max(result.growth, node.result.growth);
  result.singular_pivot |= node.result.singular_pivot;
  return result;
}

double PowerOfTwoNear(double x) { return std::ldexp(1.0, std::ilogb(x)); }

ShiftedWindow ForCounts(const BandWindow& window, double tau, int64_t begin, int64_t end) {
  return {.window = window,
          .shift = -tau * tau,
          .scale = 1 / PowerOfTwoNear(tau),
          .sum = PivotSum::kNegative,
          .begin = begin,
          .end = end};
}

// out [width, width] = [A B; B^T C] for the rows from `row` on and the columns before it, the
// columns first.
void CopyPosition(const TreeNode& node, int64_t row, double* out) {
  const int64_t width = node.width;
  for (int64_t r = 0; r < width; ++r) {
    for (int64_t c = 0; c <= r; ++c) {
      const MatrixView& part = r < row ? node.c : c < row ? node.b : node.a;
      out[r * width + c] = out[c * width + r] = part.data[r * part.stride + c];
    }
  }
}

}  // namespace

absl::StatusOr<TreeResult> CountWindow(const BandWindow& window, double tau, int64_t begin,
                                       int64_t end, std::span<double> counts, Arena& arena,
                                       const CancellationToken& cancellation) {
  const ShiftedWindow shifted = ForCounts(window, tau, begin, end);
  ESS_ASSIGN_OR_RETURN(TreeResult result,
                       Eliminate(shifted, counts.subspan(begin, end - begin), arena, cancellation));
  result.growth *= tau;
  return result;
}

absl::StatusOr<TreeResult> CountPosition(const BandWindow& window, double tau, int64_t row,
                                         double& count, Arena& arena,
                                         const CancellationToken& cancellation) {
  const int64_t begin = row / kBlock * kBlock;
  const ShiftedWindow shifted = ForCounts(window, tau, begin, begin + kBlock);
  const ArenaScope scope(arena);
  WorkMeter meter(cancellation);
  const EliminatedWindow node =
      HWY_DYNAMIC_DISPATCH(EliminateCommonOnTarget)(shifted, arena, meter);
  if (!meter.status().ok()) return meter.status();
  const int64_t size = window.width * window.width;
  double* matrix = arena.Allocate(size);
  CopyPosition(node.node, row, matrix);
  const SymmetricInertia inertia =
      InertiaInPlace({matrix, static_cast<size_t>(size)}, window.width);
  count = node.node.pivot_sum + static_cast<double>(inertia.negative);
  return TreeResult{.growth = tau * std::max(node.result.growth, inertia.largest),
                    .singular_pivot = node.result.singular_pivot || inertia.singular};
}

absl::Status WindowLogDeterminants(const BandWindow& window, double t, std::span<double> log_dets,
                                   Arena& arena, const CancellationToken& cancellation) {
  const double scale = 1 / PowerOfTwoNear(t);
  const ShiftedWindow shifted{.window = window,
                              .shift = t * t,
                              .scale = scale,
                              .sum = PivotSum::kLogAbs,
                              .begin = 0,
                              .end = window.width};
  ESS_RETURN_IF_ERROR(Eliminate(shifted, log_dets, arena, cancellation).status());
  // Position first + r has first + r columns with a pivot t^2 too many, r of them times scale^2;
  // those beyond the band were left out.
  const double log_square = 2 * std::log(t);
  const double log_scale = 2 * std::log(scale);
  for (int64_t r = 0; r < window.width; ++r) {
    const double columns = static_cast<double>(window.band + r);
    log_dets[r] -= columns * log_square + static_cast<double>(r) * log_scale;
  }
  return absl::OkStatus();
}

int64_t WindowEliminationScratch(int64_t common, int64_t width) {
  const int64_t square = width * StrideFor(width);
  const int64_t sides = 4 * StripCount(width) * kStrip * common;
  const int64_t factor = 24 * (common + kBlock);
  const int64_t panel = 2 * (3 * StripCount(width) + 3) * kStrip * (width + kBlock);
  return 6 * square + std::max({sides + factor, panel, TreeScratch(width)}) + 64;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
