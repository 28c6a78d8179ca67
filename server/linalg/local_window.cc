// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/local_window.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "server/base/status_macros.h"
#include "server/linalg/gram_product.h"
#include "server/linalg/inertia_tree_run.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/local_window.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"
#include "server/linalg/row_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {
namespace {

// X and Y are triangles: products are taken over so many of their columns or rows at a time, and
// only where these have entries.
inline constexpr int64_t kChunk = 32;

// Writes scale * values to row `row` of strips with `depth` rows, from column `first` on.
void PutScaledRow(const double* values, int64_t count, double scale, int64_t first, int64_t row,
                  int64_t depth, double* strips) {
  for (int64_t j = 0; j < count; ++j) {
    const int64_t column = first + j;
    strips[(column / kStrip * depth + row) * kStrip + column % kStrip] = scale * values[j];
  }
}

// rows_gram = X X^T. Row first + r of X has entries from column first - memory + r on.
void MultiplyRows(const LocalMatrix& matrix, int64_t first, double scale,
                  const LocalWindowParts& parts, Arena& arena, WorkMeter& meter) {
  const int64_t memory = matrix.memory();
  const int64_t rows = std::min({parts.width, memory, matrix.length() - first});
  for (int64_t begin = 0; begin < memory; begin += kChunk) {
    const int64_t depth = std::min(kChunk, memory - begin);
    const int64_t reached = std::min(rows, begin + depth);
    const int64_t columns = Arena::Rounded(reached);
    const ArenaScope scope(arena);
    double* strips = arena.Allocate(StripCount(columns) * kStrip * depth);
    std::fill_n(strips, StripCount(columns) * kStrip * depth, 0.0);
    for (int64_t r = 0; r < reached; ++r) {
      const double* band = matrix.BandRow(first + r);
      double* to = strips + r / kStrip * kStrip * depth + r % kStrip;
      for (int64_t k = std::max(begin, r); k < begin + depth; ++k) {
        to[(k - begin) * kStrip] = scale * band[k - r];
      }
    }
    const MatrixView gram{parts.rows_gram, parts.stride};
    UpdateLower<kStrip>(depth, columns,
                        {{strips, strips, gram, parts.rows_gram, parts.stride, -1.0}}, meter);
  }
}

// columns_gram = Y^T Y and sink_products = G^T Y. Row k of Y has entries from
// column end - memory + k on.
void MultiplyColumns(const LocalMatrix& matrix, int64_t first, double scale,
                     const LocalWindowParts& parts, Arena& arena, WorkMeter& meter) {
  const int64_t memory = matrix.memory();
  const int64_t end = first + parts.width;
  const int64_t rows = std::min(memory, matrix.length() - end);
  const int64_t sinks = std::min(matrix.sinks(), end);
  for (int64_t begin = 0; begin < rows; begin += kChunk) {
    const int64_t depth = std::min(kChunk, rows - begin);
    const int64_t start = parts.width - memory + begin;  // The first column with an entry.
    const int64_t corner = start / kBlock * kBlock;
    const int64_t columns = parts.width - corner;
    const ArenaScope scope(arena);
    double* strips = arena.Allocate(StripCount(columns) * kStrip * depth);
    std::fill_n(strips, StripCount(columns) * kStrip * depth, 0.0);
    for (int64_t k = 0; k < depth; ++k) {
      PutScaledRow(matrix.BandRow(end + begin + k), memory - begin - k, scale, start + k - corner,
                   k, depth, strips);
    }
    double* out = parts.columns_gram + corner * (parts.stride + 1);
    UpdateLower<kStrip>(depth, columns,
                        {{strips, strips, {out, parts.stride}, out, parts.stride, -1.0}}, meter);
    if (sinks == 0) continue;
    double* sink_strips = arena.Allocate(StripCount(sinks) * kStrip * depth);
    std::fill_n(sink_strips, StripCount(sinks) * kStrip * depth, 0.0);
    for (int64_t k = 0; k < depth; ++k) {
      PutScaledRow(matrix.SinkRow(end + begin + k), sinks, scale, 0, k, depth, sink_strips);
    }
    for (int64_t row = 0; row < sinks; row += kBlock) {
      if (!meter.Continue(2 * kBlock * depth * columns)) return;
      const double* lhs = sink_strips + row / kStrip * kStrip * depth + row % kStrip;
      for (int64_t column = 0; column < columns; column += kStrip) {
        double* tile = parts.sink_products + row * parts.stride + corner + column;
        SubtractProduct<kStrip>(depth, lhs, strips + column * depth, {tile, parts.stride}, tile,
                                parts.stride, std::min(kStrip, columns - column), -1.0);
      }
    }
  }
}

void ScaleInto(const double* from, double factor, int64_t count, double* to) {
  const Float64 d;
  const Vec scale = hn::Set(d, factor);
  for (int64_t k = 0; k < count; k += kLanes) {
    hn::StoreU(hn::Mul(scale, hn::LoadU(d, from + k)), d, to + k);
  }
}

// A lower bound of the largest singular value of X from its Gram matrix (lower triangle):
// |X X^T|_F / |X|_F.
double NormFromGram(const double* gram, int64_t stride, int64_t size) {
  double squares = 0;
  double trace = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double diagonal = gram[i * stride + i];
    trace += diagonal;
    squares += diagonal * diagonal;
    squares += 2 * DotRow(gram + i * stride, gram + i * stride, i);
  }
  return trace > 0 ? std::sqrt(squares / trace) : 0;
}

// Eliminates the border, whose rows are in `u`, from A, B and C.
BorderResult EliminateBorder(const LocalWindowParts& parts, PivotSum sum, double* u, double* v,
                             double* a, double* b, double* c, WorkMeter& meter) {
  const Panel panel{.pivots = parts.border, .columns = parts.width, .u = u, .v = v};
  const int64_t stride = parts.stride;
  HWY_ALIGN double growth[kBlock] = {};
  const PanelResult result = FactorPanel(panel, sum, growth, meter);
  const int64_t side1 = panel.pivot_strips();
  const int64_t side2 = side1 + panel.side_strips();
  UpdateLower<kBlock>(panel.pivots, panel.columns,
                      {{panel.V(side1), panel.U(side1), {a, stride}, a, stride, 1.0},
                       {panel.V(side1), panel.U(side2), {parts.inside, stride}, b, stride, 1.0},
                       {panel.V(side2), panel.U(side2), {c, stride}, c, stride, 1.0}},
                      meter);
  return {.pivot_sum = result.pivot_sum,
          .growth = *std::max_element(growth, growth + kBlock),
          .singular_pivot = result.singular_pivot};
}

}  // namespace
}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(MultiplyRows);
HWY_EXPORT(MultiplyColumns);
HWY_EXPORT(ScaleInto);
HWY_EXPORT(NormFromGram);
HWY_EXPORT(EliminateBorder);

void AddDiagonal(double* matrix, int64_t stride, int64_t width, double value) {
  for (int64_t i = 0; i < width; ++i) matrix[i * stride + i] += value;
}

double SumOfSquares(std::span<const double> x) {
  double sum = 0;
  for (const double entry : x) sum += entry * entry;
  return sum;
}

int64_t PanelSize(const LocalWindowParts& parts) {
  return parts.pivot_part() + 2 * parts.side_part();
}

// Zeros from `begin` to `end`. Memory that is touched for the first time takes its time.
absl::Status Clear(double* begin, double* end, WorkMeter& meter) {
  constexpr int64_t kPart = 1 << 20;
  while (begin < end) {
    const int64_t count = std::min<int64_t>(kPart, end - begin);
    if (!meter.Continue(count)) return meter.status();
    begin = std::fill_n(begin, count, 0.0);
  }
  return absl::OkStatus();
}

// Doubles of scratch that MultiplyColumns needs, and MultiplyRows less.
int64_t ProductScratch(int64_t width, int64_t sinks) {
  constexpr int64_t kLargestChunk = 32;
  return (StripCount(width) + StripCount(sinks)) * kStrip * kLargestChunk;
}

}  // namespace

void LocalWindow::Allocate(int64_t first, int64_t width) {
  parts_ = {.width = width,
            .stride = StrideFor(width),
            .has_columns_before = first > 0,
            .has_rows_after = first + width < matrix_.length()};
  parts_.border = Arena::Rounded(std::clamp(first, int64_t{0}, matrix_.sinks()));
  const int64_t square = width * parts_.stride;
  const int64_t products = Arena::Rounded(matrix_.sinks()) * parts_.stride;
  const int64_t panel = PanelSize(parts_);

  allocated_.reset();
  memory_.Reserve(6 * square + products + 3 * panel);
  allocated_.emplace(memory_);
  parts_.rows_gram = memory_.Allocate(square);
  parts_.inside = memory_.Allocate(square);
  parts_.columns_gram = memory_.Allocate(square);
  parts_.sink_products = memory_.Allocate(products);
  parts_.panel = memory_.Allocate(panel);
  a_ = memory_.Allocate(square);
  b_ = memory_.Allocate(square);
  c_ = memory_.Allocate(square);
  panel_u_ = memory_.Allocate(panel);
  panel_v_ = memory_.Allocate(panel);
  scratch_.Reserve(std::max(TreeScratch(width), ProductScratch(width, matrix_.sinks())));
}

void LocalWindow::CopyInside(int64_t first, double scale) {
  const int64_t memory = matrix_.memory();
  const int64_t end = std::min(first + parts_.width, matrix_.length());
  const int64_t first_sink = std::max(first, int64_t{0});
  for (int64_t row = first_sink; row < end; ++row) {
    double* to = parts_.inside + (row - first) * parts_.stride;
    const double* band = matrix_.BandRow(row);
    for (int64_t column = std::max(row - memory, first_sink); column < row; ++column) {
      to[column - first] = scale * band[column - (row - memory)];
    }
    for (int64_t column = first_sink; column < std::min(matrix_.sinks(), row); ++column) {
      to[column - first] = scale * matrix_.SinkRow(row)[column];
    }
  }
}

// Sinks before `first` make the border; those inside reach all rows after the window.
void LocalWindow::AddSinks(int64_t first, double scale, std::span<const double> gram) {
  const int64_t end = first + parts_.width;
  const int64_t all = std::min(matrix_.sinks(), end);
  const int64_t before = std::clamp(first, int64_t{0}, matrix_.sinks());
  const auto gram_at = [&](int64_t i, int64_t j) { return gram[i * matrix_.sinks() + j]; };
  for (int64_t sink = before; sink < all; ++sink) {
    for (int64_t c = before; c < end; ++c) {
      const double product =
          c < all ? gram_at(sink, c) : parts_.sink_products[sink * parts_.stride + c - first];
      // Both triangles: the tree reads the blocks on the diagonal as a whole.
      parts_.columns_gram[(c - first) * parts_.stride + sink - first] = product;
      parts_.columns_gram[(sink - first) * parts_.stride + c - first] = product;
    }
  }

  const auto put = [&](double* part, int64_t row, int64_t column, double value) {
    part[(column / kStrip * parts_.border + row) * kStrip + column % kStrip] = value;
  };
  double* side1 = parts_.panel + parts_.pivot_part();
  double* side2 = side1 + parts_.side_part();
  const int64_t rows = std::min(parts_.width, matrix_.length() - first);
  for (int64_t sink = 0; sink < before; ++sink) {
    for (int64_t j = 0; j < before; ++j) put(parts_.panel, sink, j, gram_at(sink, j));
    for (int64_t r = 0; r < rows; ++r) {
      put(side1, sink, r, scale * matrix_.SinkRow(first + r)[sink]);
    }
    for (int64_t c = 0; c < parts_.width; ++c) {
      const bool is_sink = first + c < all;
      put(side2, sink, c,
          is_sink ? gram_at(sink, first + c) : parts_.sink_products[sink * parts_.stride + c]);
    }
  }
}

// Of the block of the position in the middle that lies inside: three power steps.
double LocalWindow::InsideNorm() const {
  const int64_t middle = parts_.width / 2;
  const BlockView block{.data = parts_.inside + middle * parts_.stride,
                        .stride = parts_.stride,
                        .rows = parts_.width - middle,
                        .columns = middle};
  std::vector<double> x(middle, 1.0);
  std::vector<double> image(block.rows);
  std::vector<double> product(middle);
  double norm = 0;
  for (int step = 0; step < 3; ++step) {
    GramProduct(block, x, image, product);
    const double length = std::sqrt(SumOfSquares(x));
    norm = std::sqrt(SumOfSquares(image)) / length;
    const double next = std::sqrt(SumOfSquares(product));
    if (next == 0) break;
    for (int64_t k = 0; k < middle; ++k) x[k] = product[k] / next;
  }
  return norm;
}

absl::Status LocalWindow::Load(int64_t first, int64_t width, double scale,
                               const CancellationToken& cancellation) {
  ESS_CHECK(first < matrix_.length() && width % kBlock == 0);
  ESS_CHECK(width >= matrix_.memory() || first + width >= matrix_.length());
  if (first == first_ && width == parts_.width && scale == scale_) return absl::OkStatus();
  scale_ = 0;
  WorkMeter meter(cancellation);
  Allocate(first, width);
  ESS_RETURN_IF_ERROR(Clear(parts_.rows_gram, parts_.panel + PanelSize(parts_), meter));
  CopyInside(first, scale);
  ESS_RETURN_IF_ERROR(cancellation.Check());
  if (parts_.has_columns_before) {
    HWY_DYNAMIC_DISPATCH(MultiplyRows)(matrix_, first, scale, parts_, scratch_, meter);
  }
  if (parts_.has_rows_after) {
    HWY_DYNAMIC_DISPATCH(MultiplyColumns)(matrix_, first, scale, parts_, scratch_, meter);
  }
  ESS_RETURN_IF_ERROR(meter.status());
  const auto norm_from_gram = HWY_DYNAMIC_DISPATCH(NormFromGram);
  norm_bound_ = std::max({InsideNorm(), norm_from_gram(parts_.rows_gram, parts_.stride, width),
                          norm_from_gram(parts_.columns_gram, parts_.stride, width)});
  if (const int64_t sinks = matrix_.sinks(); sinks > 0) {
    const int64_t end = std::min(first + width, matrix_.length());
    const std::vector<double> gram = matrix_.SinkGram(end, scale);
    norm_bound_ = std::max(norm_bound_, norm_from_gram(gram.data(), sinks, std::min(sinks, end)));
    AddSinks(first, scale, gram);
  }
  first_ = first;
  scale_ = scale;
  return absl::OkStatus();
}

absl::StatusOr<TreeResult> LocalWindow::Run(double tau, PivotSum sum, std::span<double> sums,
                                            const CancellationToken& cancellation) {
  const bool logs = sum == PivotSum::kLogAbs;
  const double c_identity = logs ? -tau : tau;
  const int64_t stride = parts_.stride;
  const int64_t square = parts_.width * stride;
  TreeProblem problem{.root = {.width = parts_.width, .b = {parts_.inside, stride}},
                      .a_identity = tau,
                      .c_identity = c_identity,
                      .sum = sum};
  if (parts_.has_columns_before) {
    HWY_DYNAMIC_DISPATCH(ScaleInto)(parts_.rows_gram, logs ? 1 / tau : -1 / tau, square, a_);
    AddDiagonal(a_, stride, parts_.width, tau);
    problem.root.a = {a_, stride};
  }
  ESS_RETURN_IF_ERROR(cancellation.Check());
  if (parts_.has_rows_after || parts_.border > 0) {
    HWY_DYNAMIC_DISPATCH(ScaleInto)(parts_.columns_gram, -1 / tau, square, c_);
    AddDiagonal(c_, stride, parts_.width, c_identity);
    problem.root.c = {c_, stride};
  }

  BorderResult border;
  if (parts_.border > 0) {
    ESS_ASSIGN_OR_RETURN(border, RunBorder(c_identity, sum, cancellation));
    problem.root.b = {b_, stride};
    problem.root.pivot_sum = border.pivot_sum;
  }
  ESS_ASSIGN_OR_RETURN(TreeResult result, RunTree(problem, sums, scratch_, cancellation));
  result.growth = std::max(result.growth, border.growth);
  result.singular_pivot |= border.singular_pivot;
  if (logs) {
    const double units = static_cast<double>(parts_.width + parts_.border) * std::log(tau);
    for (double& value : sums) value -= units;
  }
  return result;
}

absl::StatusOr<BorderResult> LocalWindow::RunBorder(double identity, PivotSum sum,
                                                    const CancellationToken& cancellation) {
  const double factor = -1 / std::abs(identity);
  const int64_t pivots = parts_.pivot_part();
  const int64_t side = parts_.side_part();
  HWY_DYNAMIC_DISPATCH(ScaleInto)(parts_.panel, factor, pivots, panel_u_);
  HWY_DYNAMIC_DISPATCH(ScaleInto)(parts_.panel + pivots, 1, side, panel_u_ + pivots);
  HWY_DYNAMIC_DISPATCH(ScaleInto)
  (parts_.panel + pivots + side, factor, side, panel_u_ + pivots + side);
  for (int64_t k = 0; k < parts_.border; ++k) {
    panel_u_[(k / kStrip * parts_.border + k) * kStrip + k % kStrip] += identity;
  }
  WorkMeter meter(cancellation);
  const BorderResult result =
      HWY_DYNAMIC_DISPATCH(EliminateBorder)(parts_, sum, panel_u_, panel_v_, a_, b_, c_, meter);
  if (!meter.status().ok()) return meter.status();
  return result;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
