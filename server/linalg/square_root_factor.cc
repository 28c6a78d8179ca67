// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/square_root_factor.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/square_root_factor.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/strip_products-inl.h"
#include "server/linalg/triangular_update-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Columns whose largest entry is outside of this range, 0 apart, are scaled before they are
// squared.
inline constexpr double kSmallestUnscaled = 1e-100;
inline constexpr double kLargestUnscaled = 1e100;

// R <- R diag(gates), on and above the diagonal.
HWY_INLINE void ScaleColumns(const double* gates, SquareRootFactor& factor) {
  const Float64 d;
  for (int64_t row = 0; row < factor.padded; ++row) {
    double* entries = factor.entries.data() + row * factor.stride();
    for (int64_t column = row / kBlock * kBlock; column < factor.padded; column += kLanes) {
      const Vec gate = hn::LoadU(d, gates + column);
      hn::StoreU(hn::Mul(gate, hn::LoadU(d, entries + column)), d, entries + column);
    }
  }
}

// R <- R times the blocks [x, -y; y, x], or their transposes, and Givens rotations of the row pairs
// that make R triangular again.
HWY_INLINE void RotateColumnPairs(const double* pairs, bool transposed, SquareRootFactor& factor) {
  for (int64_t row = 0; row < factor.padded; ++row) {
    double* entries = factor.entries.data() + row * factor.stride();
    for (int64_t column = row / 2 * 2; column < factor.padded; column += 2) {
      const double x = pairs[column];
      const double y = transposed ? -pairs[column + 1] : pairs[column + 1];
      const double first = entries[column];
      const double second = entries[column + 1];
      entries[column] = x * first + y * second;
      entries[column + 1] = x * second - y * first;
    }
  }
  for (int64_t row = 0; row < factor.padded; row += 2) {
    double* upper = factor.entries.data() + row * factor.stride();
    double* lower = upper + factor.stride();
    const double norm = std::hypot(upper[row], lower[row]);
    if (lower[row] == 0) continue;
    const double cosine = upper[row] / norm;
    const double sine = lower[row] / norm;
    for (int64_t column = row; column < factor.padded; ++column) {
      const double first = upper[column];
      const double second = lower[column];
      upper[column] = cosine * first + sine * second;
      lower[column] = cosine * second - sine * first;
    }
    lower[row] = 0;
  }
}

// Moves R Phi (or R Phi^T) into the first rows of `below` and leaves R = 0.
HWY_INLINE void MoveProductBelow(const double* transition, bool transposed,
                                 SquareRootFactor& factor, int64_t rows, double* below,
                                 Arena& arena) {
  const int64_t states = factor.padded;
  const int64_t size = StripCount(states) * kStrip * states;
  const ArenaScope scope(arena);
  double* lhs = arena.Allocate(size);
  double* rhs = arena.Allocate(size);
  double* product = arena.Allocate(size);
  PackTransposed(factor.view(), states, states, false, lhs);
  if (transposed) {
    PackTransposed({transition, states}, states, states, false, rhs);
  } else {
    PackRows({transition, states}, states, states, rhs);
  }
  MultiplyStrips(states, lhs, states, rhs, states, 1.0, {.lhs_lower = true}, product);
  for (int64_t strip = 0; strip < StripCount(states); ++strip) {
    std::copy_n(product + strip * kStrip * states, kStrip * states, below + strip * kStrip * rows);
  }
  std::fill(factor.entries.begin(), factor.entries.end(), 0.0);
}

// A power of two for each state, where some column of [R; F] is out of range; else nothing.
HWY_INLINE bool ChooseScales(const TriangularUpdate& update, double* scales) {
  const Float64 d;
  bool all_in_range = true;
  for (int64_t column = 0; column < update.states; column += kLanes) {
    Vec largest = hn::Zero(d);
    for (int64_t row = 0; row < column + kLanes; ++row) {
      largest =
          hn::Max(largest, hn::Abs(hn::LoadU(d, update.factor + row * update.stride + column)));
    }
    const double* below = update.Below(column);
    for (int64_t row = 0; row < update.rows; ++row) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(d, below + row * kStrip)));
    }
    const auto in_range = hn::Or(hn::Eq(largest, hn::Zero(d)),
                                 hn::And(hn::Ge(largest, hn::Set(d, kSmallestUnscaled)),
                                         hn::Le(largest, hn::Set(d, kLargestUnscaled))));
    all_in_range &= hn::AllTrue(d, in_range);
    hn::StoreU(largest, d, scales + column);
  }
  if (all_in_range) return false;
  for (int64_t state = 0; state < update.states; ++state) {
    int exponent = 0;
    std::frexp(scales[state], &exponent);
    scales[state] = std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
  }
  return true;
}

HWY_INLINE void ScaleStripColumns(const double* scales, const TriangularUpdate& update) {
  const Float64 d;
  for (int64_t column = 0; column < update.states; column += kLanes) {
    const Vec scale = hn::LoadU(d, scales + column);
    double* below = update.Below(column);
    for (int64_t row = 0; row < update.rows; ++row) {
      hn::StoreU(hn::Mul(scale, hn::LoadU(d, below + row * kStrip)), d, below + row * kStrip);
    }
  }
}

void CarryFactorOnTarget(TimeDirection direction, TransitionKind kind, const StateWindow& window,
                         int64_t width, SquareRootFactor& factor, Arena& arena) {
  const ArenaScope scope(arena);
  const bool forward = direction == TimeDirection::kForward;
  const int64_t states = factor.padded;
  const int64_t moved = kind == TransitionKind::kDense ? states : 0;
  const int64_t rows = moved + width;
  TriangularUpdate update{.states = states,
                          .rows = rows,
                          .factor = factor.entries.data(),
                          .stride = factor.stride(),
                          .below = arena.Allocate(StripCount(states) * kStrip * rows),
                          .panel = arena.Allocate(kBlock * rows)};
  for (int64_t strip = 0; strip < StripCount(states); ++strip) {
    const int64_t column = strip * kStrip;
    const int64_t columns = std::min(kStrip, states - column);
    double* target = update.below + strip * kStrip * rows + moved * kStrip;
    if (forward) {
      PackTransposed({window.input.data() + column * width, width}, width, columns, false, target);
    } else {
      PackRows({window.output.data() + column, states}, width, columns, target);
    }
  }
  if (kind == TransitionKind::kDiagonal) {
    ScaleColumns(window.transition.data(), factor);
  } else if (kind == TransitionKind::kPairs) {
    RotateColumnPairs(window.transition.data(), forward, factor);
  } else {
    MoveProductBelow(window.transition.data(), forward, factor, rows, update.below, arena);
  }

  double* scales = arena.Allocate(states);
  const bool scaled = ChooseScales(update, scales);
  if (scaled) {
    ScaleColumns(scales, factor);
    ScaleStripColumns(scales, update);
  }
  UpdateTriangle(update);
  if (scaled) {
    for (int64_t state = 0; state < states; ++state) scales[state] = 1 / scales[state];
    ScaleColumns(scales, factor);
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(CarryFactorOnTarget);
}  // namespace

void CarryFactor(TimeDirection direction, TransitionKind kind, const StateWindow& window,
                 int64_t width, SquareRootFactor& factor, Arena& arena) {
  ESS_CHECK(width % kBlock == 0);
  HWY_DYNAMIC_DISPATCH(CarryFactorOnTarget)(direction, kind, window, width, factor, arena);
}

int64_t CarryFactorScratch(TransitionKind kind, int64_t padded_states, int64_t width) {
  const bool dense = kind == TransitionKind::kDense;
  const int64_t rows = (dense ? padded_states : 0) + width;
  const int64_t strips = StripCount(padded_states) * kStrip;
  return strips * rows + kBlock * rows + padded_states + (dense ? 3 * strips * padded_states : 0);
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
