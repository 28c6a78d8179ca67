// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/diagonal_state_space.h"

#include <algorithm>

#include "server/base/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/diagonal_state_space.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

HWY_INLINE void MultiplyRow(const double* x, const double* y, int64_t count, double* out) {
  const Float64 d;
  for (int64_t n = 0; n < count; n += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + n), hn::LoadU(d, y + n)), d, out + n);
  }
}

// Output rows c_r times the gates of the rows from `first` to r (pre-read: to r - 1), and `decay`,
// the product of all gates.
HWY_INLINE void DecayOutputs(const DiagonalRows& rows, int64_t first, int64_t last, int64_t states,
                             bool reads_before, double* decay, double* out) {
  std::fill_n(decay, states, 1.0);
  for (int64_t r = first; r < last; ++r, out += states) {
    if (reads_before) MultiplyRow(rows.c + r * states, decay, states, out);
    MultiplyRow(decay, rows.a + r * states, states, decay);
    if (!reads_before) MultiplyRow(rows.c + r * states, decay, states, out);
  }
}

// The triangle of T_x inside 8 rows from `first` on, and `aged` [8, P]: their inputs decayed to the
// last of them.
HWY_INLINE void FillDiagonalBlock(const DiagonalRows& rows, int64_t first, int64_t states,
                                  bool reads_before, double* inside, int64_t stride, double* aged) {
  const Float64 d;
  Vec sums[kBlock * (kBlock - 1) / 2];
  for (Vec& sum : sums) sum = hn::Zero(d);
  for (int64_t n = 0; n < states; n += kLanes) {
    const double* a = rows.a + first * states + n;
    const double* b = rows.b + first * states + n;
    const double* c = rows.c + first * states + n;
    int entry = 0;
#pragma GCC unroll 8
    for (int j = 0; j < kBlock; ++j) {
      Vec x = hn::LoadU(d, b + j * states);
#pragma GCC unroll 8
      for (int r = j + 1; r < kBlock; ++r, ++entry) {
        const Vec decayed = hn::Mul(x, hn::LoadU(d, a + r * states));
        const Vec seen = reads_before ? x : decayed;
        sums[entry] = hn::MulAdd(seen, hn::LoadU(d, c + r * states), sums[entry]);
        x = decayed;
      }
      hn::StoreU(x, d, aged + j * states + n);
    }
  }
  int entry = 0;
  for (int j = 0; j < kBlock; ++j) {
    for (int r = j + 1; r < kBlock; ++r, ++entry) {
      inside[(first + r) * stride + first + j] = hn::GetLane(hn::SumOfLanes(d, sums[entry]));
    }
  }
}

// Blocks of 8 rows: their products with what came before are one matrix product, of the outputs
// decayed since the block's start and the inputs decayed up to it.
void FillVectorGateOnTarget(const DiagonalRows& rows, int64_t width, int64_t states,
                            bool reads_before, StateWindow& window) {
  const Float64 d;
  const ArenaScope scope(window.scratch);
  DecayOutputs(rows, 0, width, states, reads_before, window.transition.data(),
               window.output.data());
  double* decay = window.scratch.Allocate(states);
  double* outputs = window.scratch.Allocate(kBlock * states);                     // [8, P]
  double* aged = window.scratch.Allocate(kBlock * states);                        // [8, P]
  double* lhs = window.scratch.Allocate(kBlock * states);                         // [P, 8]
  double* inputs = window.scratch.Allocate(StripCount(width) * kStrip * states);  // [P, W]
  for (int64_t first = 0; first < width; first += kBlock) {
    DecayOutputs(rows, first, first + kBlock, states, reads_before, decay, outputs);
    for (int64_t n = 0; n < states; n += kBlock) {
      TransposeBlock(outputs + n, states, lhs + n * kBlock, kBlock);
    }
    for (int64_t column = 0; column < first; column += kStrip) {
      const int64_t columns = std::min(kStrip, first - column);
      double* strip = inputs + column * states;
      SubtractProduct<kBlock>(states, lhs, strip, {}, window.inside.data() + first * width + column,
                              width, columns, -1.0);
      for (int64_t n = 0; n < states; ++n) {
        const Vec gate = hn::Set(d, decay[n]);
        for (int64_t c = 0; c < columns; c += kLanes) {
          double* at = strip + n * kStrip + c;
          hn::StoreU(hn::Mul(gate, hn::LoadU(d, at)), d, at);
        }
      }
    }
    FillDiagonalBlock(rows, first, states, reads_before, window.inside.data(), width, aged);
    double* block = inputs + first / kStrip * kStrip * states + first % kStrip;
    for (int64_t n = 0; n < states; n += kBlock) {
      TransposeBlock(aged + n, states, block + n * kStrip, kStrip);
    }
  }
  for (int64_t column = 0; column < width; column += kBlock) {
    for (int64_t n = 0; n < states; ++n) {
      const double* from = inputs + (column / kStrip * states + n) * kStrip + column % kStrip;
      std::copy_n(from, kBlock, window.input.data() + n * width + column);
    }
  }
}

// One gate for all states: T_x is c b^T times products of gates.
void FillScalarGateOnTarget(const DiagonalRows& rows, int64_t width, int64_t states,
                            bool reads_before, StateWindow& window) {
  const Float64 d;
  const ArenaScope scope(window.scratch);
  const int64_t size = StripCount(width) * kStrip * states;
  double* decay = window.scratch.Allocate(width);
  double* aged = window.scratch.Allocate(width * states);  // [W, P]
  double* lhs = window.scratch.Allocate(size);             // [P, W] in strips.
  double* rhs = window.scratch.Allocate(size);             // [P, W] in strips.
  PackTransposed({rows.c, states}, states, width, false, lhs);
  PackTransposed({rows.b, states}, states, width, false, rhs);
  const CancellationToken never;
  WorkMeter unlimited(never);
  UpdateLower<kStrip>(states, width, {{lhs, rhs, {}, window.inside.data(), width, -1.0}},
                      unlimited);
  double product = 1;
  std::fill_n(decay, width, 0.0);
  for (int64_t r = 0; r < width; ++r) {
    double* inside = window.inside.data() + r * width;
    const int64_t end = r / kBlock * kBlock + kBlock;
    if (reads_before) MultiplyRow(inside, decay, end, inside);
    const Vec gate = hn::Set(d, rows.a[r]);
    for (int64_t j = 0; j < end; j += kLanes) {
      hn::StoreU(hn::Mul(gate, hn::LoadU(d, decay + j)), d, decay + j);
    }
    if (!reads_before) MultiplyRow(inside, decay, end, inside);
    decay[r] = 1;

    const double before = product;
    product *= rows.a[r];
    const Vec share = hn::Set(d, reads_before ? before : product);
    for (int64_t n = 0; n < states; n += kLanes) {
      hn::StoreU(hn::Mul(share, hn::LoadU(d, rows.c + r * states + n)), d,
                 window.output.data() + r * states + n);
    }
  }
  std::fill(window.transition.begin(), window.transition.end(), product);
  for (int64_t j = 0; j < width; ++j) {
    const Vec share = hn::Set(d, decay[j]);
    for (int64_t n = 0; n < states; n += kLanes) {
      hn::StoreU(hn::Mul(share, hn::LoadU(d, rows.b + j * states + n)), d, aged + j * states + n);
    }
  }
  for (int64_t n = 0; n < states; n += kBlock) {
    for (int64_t j = 0; j < width; j += kBlock) {
      TransposeBlock(aged + j * states + n, states, window.input.data() + n * width + j, width);
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(FillVectorGateOnTarget);
HWY_EXPORT(FillScalarGateOnTarget);

// Rows [first, first + count) of a matrix of `columns` columns as [rows, padded], `fill` beyond
// them: in place where nothing has to be added.
const double* PaddedRows(const double* matrix, int64_t first, int64_t count, int64_t columns,
                         int64_t rows, int64_t padded, double fill, Arena& arena) {
  const double* from = matrix + first * columns;
  if (count == rows && columns == padded) return from;
  double* copy = arena.Allocate(rows * padded);
  std::fill_n(copy, rows * padded, fill);
  for (int64_t row = 0; row < count; ++row) {
    std::copy_n(from + row * columns, columns, copy + row * padded);
  }
  return copy;
}

}  // namespace

void DiagonalStateSpace::FillWindow(int64_t first, int64_t width, StateWindow& window) const {
  const int64_t N = factors_.states;
  const int64_t states = RoundUpToBlock(N);
  const int64_t rows = RoundUpToBlock(width);
  const int64_t count = std::min(width, factors_.length - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  window.Resize(states, states, rows);
  Arena& arena = window.scratch;
  arena.Reserve(3 * rows * states + rows + states + 3 * kBlock * states + rows * states +
                2 * StripCount(rows) * kStrip * states);
  const ArenaScope scope(arena);
  const int64_t gates = factors_.scalar_gate ? 1 : N;
  const int64_t padded_gates = factors_.scalar_gate ? 1 : states;
  const DiagonalRows padded = {
      .a = PaddedRows(factors_.a, first, count, gates, rows, padded_gates, 1, arena),
      .b = PaddedRows(factors_.b, first, count, N, rows, states, 0, arena),
      .c = PaddedRows(factors_.c, first, count, N, rows, states, 0, arena)};
  if (factors_.scalar_gate) {
    HWY_DYNAMIC_DISPATCH(FillScalarGateOnTarget)
    (padded, rows, states, factors_.reads_before, window);
  } else {
    HWY_DYNAMIC_DISPATCH(FillVectorGateOnTarget)
    (padded, rows, states, factors_.reads_before, window);
  }
  std::fill(window.transition.begin() + N, window.transition.end(), 0.0);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
