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

// LowerEntry(row, column) is kRowOffset[row] + kColumnOffset[column].
struct EntryOffsets {
  int32_t row[kMaxStates];
  int32_t column[kMaxStates];
};
inline constexpr EntryOffsets kEntryOffsets = [] {
  EntryOffsets offsets{};
  for (int64_t k = 0; k < kMaxStates; ++k) {
    offsets.row[k] = static_cast<int32_t>(LowerEntry(k, 0));
    offsets.column[k] =
        static_cast<int32_t>(LowerEntry(kMaxStates - 1, k) - LowerEntry(kMaxStates - 1, 0));
  }
  return offsets;
}();

// Both are eliminated state by state, the past from the first state on, the future from the last.
// This is the entry for the `state`-th and the `reflection`-th of that order.
template <Factor kFactor>
HWY_INLINE int64_t FactorEntry(int64_t states, int64_t state, int64_t reflection) {
  if constexpr (kFactor == Factor::kPast) {
    return kEntryOffsets.row[state] + kEntryOffsets.column[reflection];
  } else {
    return kEntryOffsets.row[states - 1 - reflection] + kEntryOffsets.column[states - 1 - state];
  }
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

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_FACTORS_INL_H_
