// From gates, inputs and outputs of 8 positions to what a window needs of them. Included once per
// Highway target.
#if defined(ESS_LINALG_LANE_WINDOW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_WINDOW_INL_H_
#undef ESS_LINALG_LANE_WINDOW_INL_H_
#else
#define ESS_LINALG_LANE_WINDOW_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

inline constexpr int kHalf = kWindow / 2;
inline constexpr int kHalfInside = kHalf * (kHalf - 1) / 2;

// One state over half a window.
struct HalfWindow {
  Vec transition;
  Vec input[kHalf];   // b_j times the gates behind it in this half.
  Vec output[kHalf];  // c_r times the gates from the half's start up to its own.
};

// Adds the state's part of T inside the half to `inside`, packed as a strictly lower triangle.
template <bool kReadsBefore>
HWY_INLINE HalfWindow ReadHalf(const Vec* a, const Vec* b, const Vec* c,
                               Vec (&inside)[kHalfInside]) {
  HalfWindow half;
  half.input[kHalf - 1] = b[kHalf - 1];
  half.transition = a[kHalf - 1];
#pragma GCC unroll 4
  for (int t = kHalf - 2; t >= 0; --t) {
    half.input[t] = hn::Mul(half.transition, b[t]);
    half.transition = hn::Mul(half.transition, a[t]);
  }
  Vec product = a[0];
  half.output[0] = kReadsBefore ? c[0] : hn::Mul(product, c[0]);
#pragma GCC unroll 4
  for (int t = 1; t < kHalf; ++t) {
    if (kReadsBefore) half.output[t] = hn::Mul(product, c[t]);
    product = hn::Mul(product, a[t]);
    if (!kReadsBefore) half.output[t] = hn::Mul(product, c[t]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < kHalf; ++j) {
    Vec state = b[j];
#pragma GCC unroll 4
    for (int r = j + 1; r < kHalf; ++r) {
      Vec& sum = inside[r * (r - 1) / 2 + j];
      if (kReadsBefore) sum = hn::MulAdd(state, c[r], sum);
      state = hn::Mul(state, a[r]);
      if (!kReadsBefore) sum = hn::MulAdd(state, c[r], sum);
    }
  }
  return half;
}

// T between the halves: rows of the second, columns of the first.
template <int kColumn = 0>
HWY_INLINE void ReadAcross(int64_t tiles, const double* late_output, const double* early_input,
                           double* inside) {
  TileSum<kColumn> sum;
  sum.Clear();
  for (int64_t s = 0; s < tiles; ++s) {
    sum.template Add<Read::kFull, Read::kTransposed>(TileAt(late_output, s),
                                                     TileAt(early_input, s));
  }
  for (int r = 0; r < kHalf; ++r) {
    const int row = kHalf + r;
    for (int c = 0; c < kTileColumns; ++c) {
      SetEntry(sum.entry[r][c], inside, row * (row - 1) / 2 + kColumn + c);
    }
  }
  if constexpr (kColumn + kTileColumns < kTile) {
    ReadAcross<kColumn + kTileColumns>(tiles, late_output, early_input, inside);
  }
}

template <bool kReadsBefore>
HWY_INLINE void ReadStates(const WindowLayout& layout, const WindowSource& source,
                           const ChannelWindow& window) {
  const int64_t states = layout.states();
  const int64_t tiles = layout.tiles();
  HWY_ALIGN double early_input[kMaxStates * kHalf * kLanes];
  HWY_ALIGN double late_output[kMaxStates * kHalf * kLanes];
  for (int64_t entry = (tiles - 1) * kTileEntries; entry < tiles * kTileEntries; ++entry) {
    SetEntry(Zero(), early_input, entry);
    SetEntry(Zero(), late_output, entry);
  }
  Vec inside[2][kHalfInside];
  for (auto& half : inside) {
    for (Vec& sum : half) sum = Zero();
  }
  for (int64_t s = 0; s < states; ++s) {
    Vec a[kWindow], b[kWindow], c[kWindow];
#pragma GCC unroll 8
    for (int t = 0; t < kWindow; ++t) {
      a[t] = Entry(source.a, t * states + s);
      b[t] = Entry(source.b, t * states + s);
      c[t] = Entry(source.c, t * states + s);
    }
    const HalfWindow early = ReadHalf<kReadsBefore>(a, b, c, inside[0]);
    const HalfWindow late = ReadHalf<kReadsBefore>(a + kHalf, b + kHalf, c + kHalf, inside[1]);
    SetEntry(hn::Mul(early.transition, late.transition), window.transition, s);
#pragma GCC unroll 4
    for (int t = 0; t < kHalf; ++t) {
      const int64_t first = PositionEntry(tiles, t, s);
      const int64_t second = PositionEntry(tiles, kHalf + t, s);
      SetEntry(hn::Mul(early.input[t], late.transition), window.input, first);
      SetEntry(late.input[t], window.input, second);
      SetEntry(early.output[t], window.output, first);
      SetEntry(hn::Mul(late.output[t], early.transition), window.output, second);
      SetEntry(early.input[t], early_input, first);
      SetEntry(late.output[t], late_output, first);
    }
  }
  for (int first = 0; first < kWindow; first += kHalf) {
    for (int r = 1; r < kHalf; ++r) {
      for (int j = 0; j < r; ++j) {
        const int row = first + r;
        SetEntry(inside[first / kHalf][r * (r - 1) / 2 + j], window.inside,
                 row * (row - 1) / 2 + first + j);
      }
    }
  }
  ReadAcross(tiles, late_output, early_input, window.inside);
}

// Fills transition and input alone. Raises `largest` [2, lanes] to the largest |b| and |c|.
HWY_NOINLINE void ReadPast(const WindowLayout& layout, const WindowSource& source,
                           const ChannelWindow& window, double* largest) {
  const int64_t states = layout.states();
  Vec largest_input = Entry(largest, 0);
  Vec largest_output = Entry(largest, 1);
  for (int64_t s = 0; s < states; ++s) {
    Vec product = Broadcast(1.0);
#pragma GCC unroll 8
    for (int t = kWindow - 1; t >= 0; --t) {
      const Vec b = Entry(source.b, t * states + s);
      largest_input = hn::Max(largest_input, hn::Abs(b));
      largest_output = hn::Max(largest_output, hn::Abs(Entry(source.c, t * states + s)));
      SetEntry(hn::Mul(product, b), window.input, PositionEntry(layout.tiles(), t, s));
      product = hn::Mul(product, Entry(source.a, t * states + s));
    }
    SetEntry(product, window.transition, s);
  }
  SetEntry(largest_input, largest, 0);
  SetEntry(largest_output, largest, 1);
}

// Fills transition, input, output and inside. Padded states must be there already: transition 1,
// input and output 0.
HWY_NOINLINE void ReadWindow(const WindowLayout& layout, const WindowSource& source,
                             const ChannelWindow& window) {
  if (source.reads_before) {
    ReadStates<true>(layout, source, window);
  } else {
    ReadStates<false>(layout, source, window);
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_WINDOW_INL_H_
