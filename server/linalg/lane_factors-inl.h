// Square-root forms of a recurrence's past and future, moved on by 8 positions or by one. Included
// once per Highway target.
//
// Householder reflections: never a difference of what was summed up before, so a memory that was
// wiped out, or never filled, is as harmless as any other.
#if defined(ESS_LINALG_LANE_FACTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_FACTORS_INL_H_
#undef ESS_LINALG_LANE_FACTORS_INL_H_
#else
#define ESS_LINALG_LANE_FACTORS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Keeps reflections away from 0 / 0. Its square is no denormal number.
inline constexpr double kSmallestDiagonal = 1e-150;

// Which triangle is updated: L of the past, or R of the future.
enum class Factor { kPast, kFuture };

// Both are eliminated state by state, the past from the first state on, the future from the last.
// This is the entry for the `state`-th and the `reflection`-th of that order.
template <Factor kFactor>
HWY_INLINE int64_t FactorEntry(int64_t states, int64_t state, int64_t reflection) {
  return kFactor == Factor::kPast ? LowerEntry(state, reflection)
                                  : LowerEntry(states - 1 - reflection, states - 1 - state);
}

// I - gamma v v^T scaled so that v = (1, kappa), for a diagonal entry and what joins it. The sign
// is chosen so that the new diagonal entry is positive: entries become gamma (x + kappa f) - x.
template <int kWidth>
struct Reflection {
  Vec kappa[kWidth];
  Vec gamma;

  // Returns the new diagonal entry.
  HWY_INLINE Vec Make(Vec diagonal, const Vec (&joining)[kWidth]) {
    diagonal = hn::Max(diagonal, Broadcast(kSmallestDiagonal));
    Vec squares = hn::Mul(diagonal, diagonal);
    Vec more = Zero();
#pragma GCC unroll 8
    for (int t = 0; t < kWidth; ++t) {
      Vec& sum = t % 2 == 0 ? squares : more;
      sum = hn::MulAdd(joining[t], joining[t], sum);
    }
    const Vec norm = hn::Sqrt(hn::Add(squares, more));
    const Vec head = hn::Add(diagonal, norm);
    const Vec inverse = hn::Div(Broadcast(1.0), hn::Mul(head, norm));
    const Vec factor = hn::Mul(norm, inverse);
#pragma GCC unroll 8
    for (int t = 0; t < kWidth; ++t) kappa[t] = hn::Mul(joining[t], factor);
    gamma = hn::Mul(hn::Mul(head, head), inverse);
    return norm;
  }

  // Applies it to one row; returns the new entry beside the diagonal.
  HWY_INLINE Vec Apply(Vec entry, Vec (&joining)[kWidth]) const {
    Vec sum = entry;
    Vec more = Zero();
#pragma GCC unroll 8
    for (int t = 0; t < kWidth; t += 2) {
      sum = hn::MulAdd(kappa[t], joining[t], sum);
      if (t + 1 < kWidth) more = hn::MulAdd(kappa[t + 1], joining[t + 1], more);
    }
    const Vec share = hn::Mul(hn::Add(sum, more), gamma);
#pragma GCC unroll 8
    for (int t = 0; t < kWidth; ++t) joining[t] = hn::NegMulAdd(kappa[t], share, joining[t]);
    return hn::Sub(share, entry);
  }
};

// Rows that go through the reflections together, as many as the registers hold.
inline constexpr int kRowsTogether = kWideRegisters ? 2 : 1;

// L becomes the triangle of [diag(transition) L, input^T], or R that of [R diag(transition);
// output]: `positions` is that [8, N] matrix. `out` may be `factor`.
template <Factor kFactor>
HWY_NOINLINE void AppendPositions(const WindowLayout& layout, const double* factor,
                                  const double* transition, const double* positions, double* out) {
  const int64_t states = layout.padded_states();
  Reflection<kWindow> reflections[kMaxStates];
  for (int64_t first = 0; first < states; first += kRowsTogether) {
    Vec joining[kRowsTogether][kWindow];
    Vec scale[kRowsTogether];
    for (int row = 0; row < kRowsTogether; ++row) {
      const int64_t state = kFactor == Factor::kPast ? first + row : states - 1 - first - row;
      scale[row] = Entry(transition, state);
#pragma GCC unroll 8
      for (int t = 0; t < kWindow; ++t) {
        joining[row][t] = Entry(positions, PositionEntry(layout.tiles(), t, state));
      }
    }
    for (int64_t k = 0; k < first; ++k) {
#pragma GCC unroll 2
      for (int row = 0; row < kRowsTogether; ++row) {
        const int64_t entry = FactorEntry<kFactor>(states, first + row, k);
        SetEntry(reflections[k].Apply(hn::Mul(Entry(factor, entry), scale[row]), joining[row]), out,
                 entry);
      }
    }
    for (int row = 0; row < kRowsTogether; ++row) {
      for (int before = 0; before < row; ++before) {
        const int64_t entry = FactorEntry<kFactor>(states, first + row, first + before);
        SetEntry(reflections[first + before].Apply(hn::Mul(Entry(factor, entry), scale[row]),
                                                   joining[row]),
                 out, entry);
      }
      const int64_t diagonal = FactorEntry<kFactor>(states, first + row, first + row);
      SetEntry(
          reflections[first + row].Make(hn::Mul(Entry(factor, diagonal), scale[row]), joining[row]),
          out, diagonal);
    }
  }
}

// The same for one position: `gates` and `joining` [N] in memory order.
template <Factor kFactor>
HWY_NOINLINE void AppendPosition(const WindowLayout& layout, const double* factor,
                                 const double* gates, const double* joining, double* out) {
  const int64_t states = layout.padded_states();
  const auto state_of = [states](int64_t step) {
    return kFactor == Factor::kPast ? step : states - 1 - step;
  };
  Vec rest[kMaxStates];
  for (int64_t step = 0; step < states; ++step) rest[step] = Entry(joining, state_of(step));
  for (int64_t k = 0; k < states; ++k) {
    const int64_t diagonal = FactorEntry<kFactor>(states, k, k);
    Reflection<1> reflection;
    const Vec head[1] = {rest[k]};
    SetEntry(reflection.Make(hn::Mul(Entry(factor, diagonal), Entry(gates, state_of(k))), head),
             out, diagonal);
    for (int64_t step = k + 1; step < states; ++step) {
      const int64_t entry = FactorEntry<kFactor>(states, step, k);
      Vec row[1] = {rest[step]};
      SetEntry(reflection.Apply(hn::Mul(Entry(factor, entry), Entry(gates, state_of(step))), row),
               out, entry);
      rest[step] = row[0];
    }
  }
}

// Products of the gates of half a window, with what they lead to.
struct HalfWindow {
  Vec input[kWindow / 2];   // b_j times the gates behind it in this half.
  Vec output[kWindow / 2];  // c_r times the gates from the half's start up to its own.
  Vec transition;
};

HWY_INLINE HalfWindow ReadHalf(const Vec* a, const Vec* b, const Vec* c, bool reads_before) {
  constexpr int kHalf = kWindow / 2;
  HalfWindow half;
  Vec product = Broadcast(1.0);
#pragma GCC unroll 4
  for (int t = kHalf; t-- > 0;) {
    half.input[t] = hn::Mul(product, b[t]);
    product = hn::Mul(product, a[t]);
  }
  half.transition = product;
  product = Broadcast(1.0);
#pragma GCC unroll 4
  for (int t = 0; t < kHalf; ++t) {
    const Vec after = hn::Mul(product, a[t]);
    half.output[t] = hn::Mul(reads_before ? product : after, c[t]);
    product = after;
  }
  return half;
}

// Fills transition, input, output and inside. Padded states must be there already: transition 1,
// input and output 0. Keeps the largest |b| and |c| of each lane in `largest` [2, lanes].
HWY_NOINLINE void ReadWindow(const WindowLayout& layout, const WindowSource& source,
                             const ChannelWindow& window, double* largest) {
  constexpr int kHalf = kWindow / 2;
  const int64_t states = layout.states();
  Vec largest_input = Entry(largest, 0);
  Vec largest_output = Entry(largest, 1);
  for (int64_t entry = 0; entry < kInsideEntries; ++entry) SetEntry(Zero(), window.inside, entry);
  for (int64_t s = 0; s < states; ++s) {
    Vec a[kWindow], b[kWindow], c[kWindow];
#pragma GCC unroll 8
    for (int t = 0; t < kWindow; ++t) {
      a[t] = Entry(source.a, t * states + s);
      b[t] = Entry(source.b, t * states + s);
      c[t] = Entry(source.c, t * states + s);
      largest_input = hn::Max(largest_input, hn::Abs(b[t]));
      largest_output = hn::Max(largest_output, hn::Abs(c[t]));
    }
    const HalfWindow halves[2] = {ReadHalf(a, b, c, source.reads_before),
                                  ReadHalf(a + kHalf, b + kHalf, c + kHalf, source.reads_before)};
    SetEntry(hn::Mul(halves[0].transition, halves[1].transition), window.transition, s);
#pragma GCC unroll 4
    for (int t = 0; t < kHalf; ++t) {
      const int64_t early = PositionEntry(layout.tiles(), t, s);
      const int64_t late = PositionEntry(layout.tiles(), kHalf + t, s);
      SetEntry(hn::Mul(halves[0].input[t], halves[1].transition), window.input, early);
      SetEntry(halves[1].input[t], window.input, late);
      SetEntry(halves[0].output[t], window.output, early);
      SetEntry(hn::Mul(halves[1].output[t], halves[0].transition), window.output, late);
    }
    const auto add = [&window](int row, int column, Vec left, Vec right) {
      const int64_t entry = row * (row - 1) / 2 + column;
      SetEntry(hn::MulAdd(left, right, Entry(window.inside, entry)), window.inside, entry);
    };
#pragma GCC unroll 4
    for (int r = 0; r < kHalf; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < kHalf; ++j) add(kHalf + r, j, halves[1].output[r], halves[0].input[j]);
    }
    for (int first = 0; first < kWindow; first += kHalf) {
      for (int j = first; j < first + kHalf; ++j) {
        Vec state = b[j];
        for (int r = j + 1; r < first + kHalf; ++r) {
          const Vec after = hn::Mul(state, a[r]);
          add(r, j, source.reads_before ? state : after, c[r]);
          state = after;
        }
      }
    }
  }
  SetEntry(largest_input, largest, 0);
  SetEntry(largest_output, largest, 1);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_FACTORS_INL_H_
