// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/band_window.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/band_window.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/band_reduction-inl.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

void AccumulateGramOnTarget(MatrixView rows, int64_t depth, int64_t columns, bool add, double* gram,
                            int64_t gram_stride, Arena& arena, WorkMeter& meter) {
  if (depth == 0) {
    for (int64_t row = 0; !add && row < columns; ++row) {
      std::fill_n(gram + row * gram_stride, columns, 0.0);
    }
    return;
  }
  const ArenaScope scope(arena);
  double* strips = arena.Allocate(StripCount(columns) * kStrip * depth);
  PackRows(rows, depth, columns, strips);
  const MatrixView before = add ? MatrixView{gram, gram_stride} : MatrixView{};
  UpdateLower<kStrip>(depth, columns, {{strips, strips, before, gram, gram_stride, -1.0}}, meter);
}

// The lower triangle, in whole blocks, times `factor`.
HWY_INLINE void CopyLower(MatrixView from, double factor, const LowerStrips& to) {
  const Float64 d;
  const Vec scale = hn::Set(d, factor);
  for (int64_t column = 0; column < to.size(); column += kBlock) {
    for (int64_t row = column; row < to.size(); ++row) {
      const double* source = from.data + row * from.stride + column;
      double* target = to.At(row, column);
      for (int64_t c = 0; c < kBlock; c += kLanes) {
        hn::StoreU(hn::Mul(scale, hn::LoadU(d, source + c)), d, target + c);
      }
    }
  }
}

HWY_INLINE void Scale(double factor, int64_t count, double* numbers) {
  if (factor == 1) return;
  for (int64_t x = 0; x < count; ++x) numbers[x] *= factor;
}

// Products of the sides' rows beyond the band.
void MultiplyRest(const BandWindow& window, double* pp, double* pq, double* qq, Arena& arena,
                  WorkMeter& meter) {
  const ArenaScope scope(arena);
  const int64_t rest = window.common - window.band;
  const int64_t side = window.side_strips() * kStrip * rest;
  double* p = arena.Allocate(2 * side);
  double* q = p + side;
  for (const bool second : {false, true}) {
    for (int64_t strip = 0; strip < window.side_strips(); ++strip) {
      std::copy_n(window.Side(second, strip) + window.band * kStrip, kStrip * rest,
                  (second ? q : p) + strip * kStrip * rest);
    }
  }
  const int64_t stride = StrideFor(window.width);
  UpdateLower<kStrip>(
      rest, window.width,
      {{p, p, {}, pp, stride, -1.0}, {p, q, {}, pq, stride, -1.0}, {q, q, {}, qq, stride, -1.0}},
      meter);
}

BandWindow ReduceWindowOnTarget(const BandSource& source, int64_t first, int64_t width,
                                Arena& arena, WorkMeter& meter) {
  const int64_t stride = StrideFor(width);
  const double square = source.unit * source.unit;
  BandWindow window{
      .first = first, .width = width, .common = first, .band = first, .unit = source.unit};
  double* inside = arena.Allocate(width * stride);
  double* corner = arena.Allocate(width * stride);
  for (int64_t r = 0; r < width; ++r) {
    const double* entries = source.matrix.Block(first + r, first).data;
    const double* squares = source.gram.Block(first + r, first).data;
    for (int64_t c = 0; c < width; ++c) {
      inside[r * stride + c] = c < r ? source.unit * entries[c] : 0;
      corner[r * stride + c] = c <= r ? square * squares[c] : 0;
    }
  }
  window.inside = {inside, stride};
  window.corner = {corner, stride};
  if (first == 0) return window;

  window.diagonal = arena.Allocate(first * kBlock);
  window.coupling = arena.Allocate(first * kBlock);
  const int64_t side = window.side_strips() * kStrip * first;
  window.sides = arena.Allocate(2 * side);
  PackTransposed(source.matrix.Block(first, 0), first, width, false, window.sides);
  PackTransposed(source.gram.Block(first, 0), first, width, false, window.sides + side);
  Scale(source.unit, side, window.sides);
  Scale(square, side, window.sides + side);
  {
    const ArenaScope scope(arena);
    const LowerStrips matrix(arena.Allocate(LowerStrips::Size(first)), first);
    CopyLower(source.gram, square, matrix);
    BandReduction reduction(matrix, window, source.floor_norm * source.floor_norm, arena, meter);
    window.band = reduction.Run();
  }
  if (window.band < first && meter.status().ok()) {
    double* pp = arena.Allocate(width * stride);
    double* pq = arena.Allocate(width * stride);
    double* qq = arena.Allocate(width * stride);
    MultiplyRest(window, pp, pq, qq, arena, meter);
    window.rest_pp = {pp, stride};
    window.rest_pq = {pq, stride};
    window.rest_qq = {qq, stride};
  }
  return window;
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(AccumulateGramOnTarget);
HWY_EXPORT(ReduceWindowOnTarget);

}  // namespace

absl::Status AccumulateGram(MatrixView rows, int64_t depth, int64_t columns, bool add, double* gram,
                            int64_t gram_stride, Arena& arena,
                            const CancellationToken& cancellation) {
  WorkMeter meter(cancellation);
  HWY_DYNAMIC_DISPATCH(AccumulateGramOnTarget)
  (rows, depth, columns, add, gram, gram_stride, arena, meter);
  return meter.status();
}

absl::StatusOr<BandWindow> ReduceWindow(const BandSource& source, int64_t first, int64_t width,
                                        Arena& arena, const CancellationToken& cancellation) {
  WorkMeter meter(cancellation);
  const BandWindow window =
      HWY_DYNAMIC_DISPATCH(ReduceWindowOnTarget)(source, first, width, arena, meter);
  if (!meter.status().ok()) return meter.status();
  return window;
}

int64_t ReduceWindowScratch(int64_t common, int64_t width) {
  const int64_t square = width * StrideFor(width);
  const int64_t sides = 2 * StripCount(width) * kStrip * common;
  const int64_t lower = StripCount(common) * kStrip * common;  // Of the matrix: at most.
  const int64_t panels = (8 + 1 + 1 + 2 + 2) * kBlock * (common + kStrip);
  return 5 * square + 2 * common * kBlock + sides + std::max(lower + panels, sides);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
