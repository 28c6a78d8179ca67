// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/recurrent_window.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/statusor.h"
#include "server/linalg/inertia_tree_run.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/recurrent_window.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"
#include "server/linalg/strip_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// The largest entry of a window stays within 2^kLargestExponent and its inverse, so that squares of
// it and of entries far below it keep all their digits.
inline constexpr int kLargestExponent = 30;

// out = Phi M for M [P, P] in strips.
HWY_INLINE void ApplyTransition(TransitionKind kind, const std::vector<double>& transition,
                                int64_t states, const double* in, double* out, Arena& arena) {
  const Float64 d;
  if (kind == TransitionKind::kDense) {
    const ArenaScope scope(arena);
    double* lhs = arena.Allocate(StripCount(states) * kStrip * states);
    PackTransposed({transition.data(), states}, states, states, false, lhs);
    MultiplyStrips(states, lhs, states, in, states, 1.0, {.rhs_lower = true}, out);
    return;
  }
  for (int64_t strip = 0; strip < StripCount(states); ++strip) {
    for (int64_t row = 0; row < states; row += 2) {
      const int64_t offset = (strip * states + row) * kStrip;
      const Vec x = hn::Set(d, transition[row]);
      const Vec y = hn::Set(d, transition[row + 1]);
      for (int64_t c = 0; c < kStrip; c += kLanes) {
        const Vec first = hn::LoadU(d, in + offset + c);
        const Vec second = hn::LoadU(d, in + offset + kStrip + c);
        if (kind == TransitionKind::kDiagonal) {
          hn::StoreU(hn::Mul(x, first), d, out + offset + c);
          hn::StoreU(hn::Mul(y, second), d, out + offset + kStrip + c);
        } else {
          hn::StoreU(hn::NegMulAdd(y, second, hn::Mul(x, first)), d, out + offset + c);
          hn::StoreU(hn::MulAdd(y, first, hn::Mul(x, second)), d, out + offset + kStrip + c);
        }
      }
    }
  }
}

// The largest magnitude of a matrix [rows, columns] in strips.
HWY_INLINE double LargestInStrips(const double* strips, int64_t rows, int64_t columns) {
  const Float64 d;
  Vec largest = hn::Zero(d);
  for (int64_t column = 0; column < columns; column += kStrip) {
    const int64_t width = std::min(kStrip, columns - column);
    const double* entries = strips + column * rows;
    for (int64_t row = 0; row < rows; ++row, entries += kStrip) {
      for (int64_t c = 0; c < width; c += kLanes) {
        largest = hn::Max(largest, hn::Abs(hn::LoadU(d, entries + c)));
      }
    }
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

HWY_INLINE double LargestOf(const std::vector<double>& entries) {
  const Float64 d;
  Vec largest = hn::Zero(d);
  for (size_t k = 0; k < entries.size(); k += kLanes) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(d, entries.data() + k)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

HWY_INLINE void Scale(double factor, int64_t size, const double* in, double* out) {
  const Float64 d;
  const Vec scale = hn::Set(d, factor);
  for (int64_t k = 0; k < size; k += kLanes) {
    hn::StoreU(hn::Mul(scale, hn::LoadU(d, in + k)), d, out + k);
  }
}

// squares[column] = sum over the rows of the squares of a matrix [rows, columns] in strips.
HWY_INLINE void SquareColumns(const double* strips, int64_t rows, int64_t columns,
                              double* squares) {
  const Float64 d;
  std::fill_n(squares, columns, 0.0);
  for (int64_t column = 0; column < columns; column += kStrip) {
    const int64_t width = std::min(kStrip, columns - column);
    const double* entries = strips + column * rows;
    double* sums = squares + column;
    for (int64_t row = 0; row < rows; row += 4, entries += 4 * kStrip) {
      for (int64_t c = 0; c < width; c += kLanes) {
        const Vec x0 = hn::LoadU(d, entries + c);
        const Vec x1 = hn::LoadU(d, entries + kStrip + c);
        const Vec x2 = hn::LoadU(d, entries + 2 * kStrip + c);
        const Vec x3 = hn::LoadU(d, entries + 3 * kStrip + c);
        const Vec first = hn::MulAdd(x0, x0, hn::Mul(x1, x1));
        const Vec second = hn::MulAdd(x2, x2, hn::Mul(x3, x3));
        hn::StoreU(hn::Add(hn::LoadU(d, sums + c), hn::Add(first, second)), d, sums + c);
      }
    }
  }
}

// Adds to norms[i] the squares of T_x in the rows from i on and the columns before i.
HWY_INLINE void AddInsideSquares(const std::vector<double>& inside, int64_t width, double* norms,
                                 double* suffix) {
  const Float64 d;
  std::fill_n(suffix, width, 0.0);
  for (int64_t i = width - 1; i > 0; --i) {
    const double* row = inside.data() + i * width;
    Vec sum = hn::Zero(d);
    for (int64_t column = 0; column < i; column += kLanes) {
      const Vec x = hn::LoadU(d, row + column);
      const Vec squares = hn::MulAdd(x, x, hn::LoadU(d, suffix + column));
      hn::StoreU(squares, d, suffix + column);
      const Vec before = hn::IfThenElseZero(hn::FirstN(d, i - column), squares);
      sum = hn::Add(sum, before);
    }
    norms[i] += hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

HWY_INLINE void FillNorms(const double* z, const double* y, RecurrentWindow& window, Arena& arena) {
  const ArenaScope scope(arena);
  const int64_t width = window.width;
  double* common = arena.Allocate(window.states);
  double* rows = arena.Allocate(width);
  double* columns = arena.Allocate(width);
  SquareColumns(z, window.states, window.states, common);
  SquareColumns(window.outputs(), window.states, width, rows);
  SquareColumns(y, window.states, width, columns);
  double shared = 0;
  for (int64_t state = 0; state < window.states; ++state) shared += common[state];
  window.squared_norms.assign(width, shared);
  double after = 0;
  for (int64_t i = width - 1; i >= 0; --i) window.squared_norms[i] += after += rows[i];
  double before = 0;
  for (int64_t i = 1; i < width; ++i) window.squared_norms[i] += before += columns[i - 1];
  AddInsideSquares(window.inside, width, window.squared_norms.data(), rows);
  std::fill(window.squared_norms.begin() + window.count, window.squared_norms.end(), 0.0);
  window.largest_square =
      *std::max_element(window.squared_norms.begin(), window.squared_norms.end());
}

void DescribeWindowOnTarget(TransitionKind kind, StateWindow& source, const SquareRootFactor& past,
                            const SquareRootFactor& future, RecurrentWindow& window, Arena& arena) {
  const ArenaScope scope(arena);
  const int64_t states = window.states;
  const int64_t width = window.width;
  const int64_t square = StripCount(states) * kStrip * states;
  const int64_t side = StripCount(width) * kStrip * states;
  double* future_lower = arena.Allocate(square);  // R_O^T
  double* past_lower = arena.Allocate(square);    // R_C^T
  double* moved = arena.Allocate(square);         // Phi R_C^T
  double* z = arena.Allocate(square);
  double* y = arena.Allocate(side);
  double* operand = arena.Allocate(side);
  window.common.resize(square + 2 * side);
  double* gram = window.common.data();
  double* outputs = gram + square;
  double* couplings = outputs + side;

  PackTransposed(future.view(), states, states, false, future_lower);
  PackTransposed(past.view(), states, states, false, past_lower);
  ApplyTransition(kind, source.transition, states, past_lower, moved, arena);
  MultiplyStrips(states, future_lower, states, moved, states, 1.0,
                 {.lhs_lower = true, .rhs_lower = kind != TransitionKind::kDense}, z);
  PackRows({source.input.data(), width}, states, width, operand);
  MultiplyStrips(states, future_lower, states, operand, width, 1.0, {.lhs_lower = true}, y);
  PackTransposed({source.output.data(), states}, states, width, false, operand);
  MultiplyStrips(states, past_lower, states, operand, width, 1.0, {.lhs_lower = true}, outputs);

  window.inside = std::move(source.inside);
  const double largest =
      std::max({LargestOf(window.inside), LargestInStrips(z, states, states),
                LargestInStrips(y, states, width), LargestInStrips(outputs, states, width)});
  int exponent = 0;
  std::frexp(largest, &exponent);
  window.exponent = std::abs(exponent) > kLargestExponent ? exponent : 0;
  if (window.exponent != 0) {
    // In two steps: the inverse of a subnormal number would overflow.
    for (const int part : {-exponent / 2, -exponent - -exponent / 2}) {
      const double factor = std::ldexp(1.0, part);
      Scale(factor, square, z, z);
      Scale(factor, side, y, y);
      Scale(factor, side, outputs, outputs);
      Scale(factor, width * width, window.inside.data(), window.inside.data());
    }
  }
  MultiplyStrips(states, z, states, z, states, -1.0, {.upper_only = true}, gram);
  MultiplyStrips(states, z, states, y, width, -1.0, {}, couplings);
  const int64_t stride = StrideFor(width);
  window.columns.resize(width * stride);
  const CancellationToken never;
  WorkMeter unlimited(never);
  UpdateLower<kStrip>(states, width, {{y, y, {}, window.columns.data(), stride, 1.0}}, unlimited);
  FillNorms(z, y, window, arena);
}

// Zeroes columns [first, last) of a matrix [rows, ...] in strips.
HWY_INLINE void ClearColumns(int64_t first, int64_t last, int64_t rows, double* strips) {
  for (int64_t column = first; column < last; ++column) {
    double* entries = strips + column / kStrip * kStrip * rows + column % kStrip;
    for (int64_t row = 0; row < rows; ++row) entries[row * kStrip] = 0;
  }
}

// -G s^2 + shift I, X^T s and -Q s^2 as the rows of a panel.
HWY_INLINE void FillPanel(const RecurrentWindow& window, const WindowShift& shift, double scale,
                          const Panel& panel) {
  const int64_t states = window.states;
  const double square = scale * scale;
  for (int64_t strip = 0; strip < StripCount(states); ++strip) {
    const int64_t offset = strip * kStrip * states;
    const int64_t rows = std::min(states, (strip + 1) * kStrip);
    Scale(square, rows * kStrip, window.common.data() + offset, panel.u + offset);
    for (int64_t state = strip * kStrip; state < rows; ++state) {
      panel.u[offset + state * kStrip + state % kStrip] += shift.shift;
    }
  }
  const int64_t side = panel.side_strips() * kStrip * states;
  double* outputs = panel.U(panel.pivot_strips());
  double* couplings = outputs + side;
  Scale(scale, side, window.outputs(), outputs);
  Scale(square, side, window.couplings(), couplings);
  ClearColumns(0, shift.range.first, states, outputs);
  ClearColumns(shift.range.last - 1, window.width, states, couplings);
}

// Makes `node` the window's root of the tree; its matrices stay in the arena.
TreeResult EliminateCommonOnTarget(const RecurrentWindow& window, const WindowShift& shift,
                                   TreeNode& node, Arena& arena, WorkMeter& meter) {
  const int64_t width = window.width;
  const int64_t stride = StrideFor(width);
  const double scale = std::ldexp(1.0, -shift.rescale);
  double* a = arena.Allocate(width * stride);
  double* b = arena.Allocate(width * stride);
  double* c = arena.Allocate(width * stride);
  const ArenaScope scope(arena);
  Panel panel{.pivots = window.states, .columns = width, .u = nullptr, .v = nullptr};
  panel.u = arena.Allocate(panel.strips() * kStrip * panel.pivots);
  panel.v = arena.Allocate(panel.strips() * kStrip * panel.pivots);
  FillPanel(window, shift, scale, panel);
  HWY_ALIGN double growth[kBlock] = {};
  const PanelResult result = FactorPanel(panel, shift.sum, growth, meter);

  for (int64_t row = 0; row < width; ++row) {
    const int64_t size = row / kBlock * kBlock + kBlock;
    // Of the row's size, what belongs to positions that are wanted.
    const int64_t columns = std::min(size, RoundUpToBlock(shift.range.last - 1));
    std::fill_n(b + row * stride, size, 0.0);
    std::fill_n(c + row * stride, size, 0.0);
    if (row >= shift.range.first) {
      Scale(scale, columns, window.inside.data() + row * width, b + row * stride);
    }
    if (row < shift.range.last - 1) {
      Scale(scale * scale, columns, window.columns.data() + row * stride, c + row * stride);
    }
    for (int64_t column = shift.range.last - 1; column < size; ++column)
      b[row * stride + column] = 0;
    c[row * stride + row] += shift.shift;
  }
  const int64_t side1 = panel.pivot_strips();
  const int64_t side2 = side1 + panel.side_strips();
  UpdateLower<kBlock>(panel.pivots, width,
                      {{panel.V(side1), panel.U(side1), {}, a, stride, 1.0},
                       {panel.V(side1), panel.U(side2), {b, stride}, b, stride, 1.0},
                       {panel.V(side2), panel.U(side2), {c, stride}, c, stride, 1.0}},
                      meter);
  for (int64_t row = 0; row < width; ++row) a[row * stride + row] += 1;
  node = {.width = width,
          .a = {a, stride},
          .b = {b, stride},
          .c = {c, stride},
          .pivot_sum = result.pivot_sum};
  return {.growth = *std::max_element(growth, growth + kBlock),
          .singular_pivot = result.singular_pivot};
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(DescribeWindowOnTarget);
HWY_EXPORT(EliminateCommonOnTarget);
}  // namespace

void DescribeWindow(TransitionKind kind, StateWindow& source, const SquareRootFactor& past,
                    const SquareRootFactor& future, RecurrentWindow& window, Arena& arena) {
  HWY_DYNAMIC_DISPATCH(DescribeWindowOnTarget)(kind, source, past, future, window, arena);
}

int64_t DescribeWindowScratch(int64_t padded_states, int64_t width) {
  return 5 * StripCount(padded_states) * kStrip * padded_states +
         2 * StripCount(width) * kStrip * padded_states + padded_states + 2 * width;
}

absl::StatusOr<TreeResult> EliminateWindow(const RecurrentWindow& window, const WindowShift& shift,
                                           std::span<double> sums, Arena& arena,
                                           const CancellationToken& cancellation) {
  const WindowRange& range = shift.range;
  ESS_CHECK(0 <= range.first && range.first < range.last && range.last <= window.width);
  const ArenaScope scope(arena);
  WorkMeter meter(cancellation);
  TreeNode node;
  const TreeResult common =
      HWY_DYNAMIC_DISPATCH(EliminateCommonOnTarget)(window, shift, node, arena, meter);
  if (!meter.status().ok()) return meter.status();
  auto tree = RunTree({.root = node, .sum = shift.sum}, sums, arena, cancellation);
  if (!tree.ok()) return tree;
  return TreeResult{.growth = std::max(common.growth, tree->growth),
                    .singular_pivot = common.singular_pivot || tree->singular_pivot};
}

int64_t EliminateWindowScratch(int64_t padded_states, int64_t width) {
  const int64_t strips = StripCount(padded_states) + 2 * StripCount(width);
  return 3 * width * StrideFor(width) +
         std::max(2 * strips * kStrip * padded_states, TreeScratch(width));
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
