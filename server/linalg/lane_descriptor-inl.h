// What the counts of 8 positions need and no tolerance changes. Included once per Highway target.
#if defined(ESS_LINALG_LANE_DESCRIPTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_DESCRIPTOR_INL_H_
#undef ESS_LINALG_LANE_DESCRIPTOR_INL_H_
#else
#define ESS_LINALG_LANE_DESCRIPTOR_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// out = diag(scale) L.
HWY_NOINLINE void ScaleRows(const WindowLayout& layout, const double* scale, const double* lower,
                            double* out) {
  for (int64_t i = 0; i < layout.tiles(); ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double* tile = TileAt(lower, LowerTile(i, j));
      double* out_tile = TileAt(out, LowerTile(i, j));
#pragma GCC unroll 4
      for (int64_t r = 0; r < kTile; ++r) {
        const Vec factor = Entry(scale, i * kTile + r);
#pragma GCC unroll 4
        for (int64_t c = 0; c < kTile; ++c) {
          SetEntry(hn::Mul(factor, Entry(tile, r * kTile + c)), out_tile, r * kTile + c);
        }
      }
    }
  }
}

// Tile (i, j), i >= j, of the product of two lower triangles.
template <int kColumn = 0>
HWY_INLINE void LowerProductTile(const double* left, const double* right, int64_t i, int64_t j,
                                 double* out) {
  TileSum<kColumn> sum;
  sum.Clear();
  const double* left_row = TileAt(left, LowerTile(i, 0));
  if (i == j) {
    sum.template Add<Read::kLower, Read::kLower>(TileAt(left_row, i),
                                                 TileAt(right, LowerTile(i, i)));
  } else {
    sum.template Add<Read::kFull, Read::kLower>(TileAt(left_row, j),
                                                TileAt(right, LowerTile(j, j)));
    for (int64_t s = j + 1; s < i; ++s) {
      sum.template Add<Read::kFull, Read::kFull>(TileAt(left_row, s),
                                                 TileAt(right, LowerTile(s, j)));
    }
    sum.template Add<Read::kLower, Read::kFull>(TileAt(left_row, i),
                                                TileAt(right, LowerTile(i, j)));
  }
  sum.StoreTo(TileAt(out, LowerTile(i, j)));
  if constexpr (kColumn + kTileColumns < kTile) {
    LowerProductTile<kColumn + kTileColumns>(left, right, i, j, out);
  }
}

// out = left right, all of them lower triangles.
HWY_NOINLINE void LowerProduct(const WindowLayout& layout, const double* left, const double* right,
                               double* out) {
  for (int64_t i = 0; i < layout.tiles(); ++i) {
    for (int64_t j = 0; j <= i; ++j) LowerProductTile(left, right, i, j, out);
  }
}

// Tile (i, j), i >= j, of Z^T Z for a lower triangle Z; kOutput: kLower on the diagonal.
template <Read kOutput, int kColumn = 0>
HWY_INLINE void GramTile(int64_t tiles, const double* lower, int64_t i, int64_t j, double* out) {
  TileSum<kColumn, kOutput> sum;
  sum.Clear();
  const double* diagonal = TileAt(lower, LowerTile(i, i));
  if constexpr (kOutput == Read::kLower) {
    sum.template Add<Read::kLowerTransposed, Read::kLower>(diagonal, diagonal);
  } else {
    sum.template Add<Read::kLowerTransposed, Read::kFull>(diagonal, TileAt(lower, LowerTile(i, j)));
  }
  for (int64_t s = i + 1; s < tiles; ++s) {
    sum.template Add<Read::kTransposed, Read::kFull>(TileAt(lower, LowerTile(s, i)),
                                                     TileAt(lower, LowerTile(s, j)));
  }
  sum.StoreTo(TileAt(out, LowerTile(i, j)));
  if constexpr (kColumn + kTileColumns < kTile) {
    GramTile<kOutput, kColumn + kTileColumns>(tiles, lower, i, j, out);
  }
}

// Tile (i, q) of Y = R input^T.
template <int kColumn = 0>
HWY_INLINE void InputImageTile(int64_t tiles, const double* future, const double* input, int64_t i,
                               int64_t q, double* out) {
  TileSum<kColumn> sum;
  sum.Clear();
  for (int64_t s = i; s-- > 0;) {
    sum.template Add<Read::kFull, Read::kTransposed>(TileAt(future, LowerTile(i, s)),
                                                     TileAt(input, q * tiles + s));
  }
  sum.template Add<Read::kLower, Read::kTransposed>(TileAt(future, LowerTile(i, i)),
                                                    TileAt(input, q * tiles + i));
  sum.StoreTo(TileAt(out, 2 * i + q));
  if constexpr (kColumn + kTileColumns < kTile) {
    InputImageTile<kColumn + kTileColumns>(tiles, future, input, i, q, out);
  }
}

// Tile (j, q) of L^T output^T.
template <int kColumn = 0>
HWY_INLINE void OutputImageTile(int64_t tiles, const double* past, const double* output, int64_t j,
                                int64_t q, double* out) {
  TileSum<kColumn> sum;
  sum.Clear();
  sum.template Add<Read::kLowerTransposed, Read::kTransposed>(TileAt(past, LowerTile(j, j)),
                                                              TileAt(output, q * tiles + j));
  for (int64_t s = j + 1; s < tiles; ++s) {
    sum.template Add<Read::kTransposed, Read::kTransposed>(TileAt(past, LowerTile(s, j)),
                                                           TileAt(output, q * tiles + s));
  }
  sum.StoreTo(TileAt(out, 4 * j + q));
  if constexpr (kColumn + kTileColumns < kTile) {
    OutputImageTile<kColumn + kTileColumns>(tiles, past, output, j, q, out);
  }
}

// Tile (i, q) of Z^T Y.
template <int kColumn = 0>
HWY_INLINE void CouplingTile(int64_t tiles, const double* lower, const double* image, int64_t i,
                             int64_t q, double* out) {
  TileSum<kColumn> sum;
  sum.Clear();
  sum.template Add<Read::kLowerTransposed, Read::kFull>(TileAt(lower, LowerTile(i, i)),
                                                        TileAt(image, 2 * i + q));
  for (int64_t s = i + 1; s < tiles; ++s) {
    sum.template Add<Read::kTransposed, Read::kFull>(TileAt(lower, LowerTile(s, i)),
                                                     TileAt(image, 2 * s + q));
  }
  sum.StoreTo(TileAt(out, 4 * i + 2 + q));
  if constexpr (kColumn + kTileColumns < kTile) {
    CouplingTile<kColumn + kTileColumns>(tiles, lower, image, i, q, out);
  }
}

// Tile (p, q) of Y^T Y; kOutput: kLower on the diagonal.
template <Read kOutput, int kColumn = 0>
HWY_INLINE void WindowGramTile(int64_t tiles, const double* image, int64_t p, int64_t q,
                               double* out) {
  TileSum<kColumn, kOutput> sum;
  sum.Clear();
  for (int64_t s = 0; s < tiles; ++s) {
    sum.template Add<Read::kTransposed, Read::kFull>(TileAt(image, 2 * s + p),
                                                     TileAt(image, 2 * s + q));
  }
  sum.StoreTo(TileAt(out, LowerTile(p, q)));
  if constexpr (kColumn + kTileColumns < kTile) {
    WindowGramTile<kOutput, kColumn + kTileColumns>(tiles, image, p, q, out);
  }
}

// ||H_i||_F^2 of the 8 positions: H_i is made of Z, of Y's columns before i, of the output rows
// from i on, and of the inside entries between them. Sums of squares only, nothing is taken away.
HWY_NOINLINE void SumSquares(const WindowLayout& layout, const ChannelWindow& window) {
  Vec shared = Zero();
  Vec row_squares[kWindow];
  for (int64_t t = 0; t < kWindow; ++t) row_squares[t] = Zero();
  for (int64_t j = 0; j < layout.tiles(); ++j) {
    const double* diagonal = TileAt(window.past_gram, LowerTile(j, j));
    for (int64_t r = 0; r < kTile; ++r) {
      shared = hn::Add(shared, Entry(diagonal, r * kTile + r));
#pragma GCC unroll 8
      for (int64_t t = 0; t < kWindow; ++t) {
        const Vec x = Entry(TileAt(window.couplings, 4 * j + t / kTile), r * kTile + t % kTile);
        row_squares[t] = hn::MulAdd(x, x, row_squares[t]);
      }
    }
  }
  // At position i column i - 1 joins, Y's and the inside's; row i - 1 has left.
  Vec columns = Zero();
  Vec largest = Zero();
#pragma GCC unroll 8
  for (int64_t i = 0; i < kWindow; ++i) {
    Vec sum = hn::Add(shared, columns);
#pragma GCC unroll 8
    for (int64_t r = i; r < kWindow; ++r) {
      if (i > 0) {
        const Vec x = Entry(window.inside, r * (r - 1) / 2 + i - 1);
        row_squares[r] = hn::MulAdd(x, x, row_squares[r]);
      }
      sum = hn::Add(sum, row_squares[r]);
    }
    const auto counts = hn::Gt(sum, Broadcast(kSmallestSquaredNorm));
    const Vec squared_norm = hn::IfThenElseZero(counts, sum);
    SetEntry(squared_norm, window.squared_norms, i);
    largest = hn::Max(largest, squared_norm);
    const double* tile = TileAt(window.window_gram, LowerTile(i / kTile, i / kTile));
    columns = hn::Add(columns, Entry(tile, i % kTile * kTile + i % kTile));
  }
  SetEntry(largest, window.largest_squared_norm, 0);
}

// Tile (i, j), i >= j, of H_a^T H_a = Z^T Z + X^T X, with its sum of squares added to `squares`.
template <int kColumn = 0>
HWY_INLINE Vec FirstGramSquares(const ChannelWindow& window, int64_t i, int64_t j, Vec squares) {
  TileSum<kColumn> sum;
  sum.LoadFrom(TileAt(window.past_gram, LowerTile(i, j)));
  for (const int64_t q : {0, 1}) {
    sum.template Add<Read::kFull, Read::kTransposed>(TileAt(window.couplings, 4 * i + q),
                                                     TileAt(window.couplings, 4 * j + q));
  }
  for (int r = 0; r < kTile; ++r) {
    for (int c = 0; c < kTileColumns; ++c) {
      if (i == j && r < kColumn + c) continue;
      const Vec x = sum.entry[r][c];
      const Vec square = hn::Mul(x, x);
      squares = hn::Add(squares, i == j && r == kColumn + c ? square : hn::Add(square, square));
    }
  }
  if constexpr (kColumn + kTileColumns < kTile) {
    return FirstGramSquares<kColumn + kTileColumns>(window, i, j, squares);
  }
  return squares;
}

// Fills norm_bounds: sigma_1(H_a)^4 is at most the sum of all sigma^4, and every later position
// adds at most the squares of the columns that join.
HWY_NOINLINE void BoundNorms(const WindowLayout& layout, const ChannelWindow& window) {
  Vec squares = Zero();
  for (int64_t i = 0; i < layout.tiles(); ++i) {
    for (int64_t j = 0; j <= i; ++j) squares = FirstGramSquares(window, i, j, squares);
  }
  Vec bound = hn::Sqrt(squares);
  for (int64_t i = 0; i < kWindow; ++i) {
    SetEntry(hn::Min(bound, Entry(window.squared_norms, i)), window.norm_bounds, i);
    const double* gram = TileAt(window.window_gram, LowerTile(i / kTile, i / kTile));
    bound = hn::Add(bound, Entry(gram, i % kTile * kTile + i % kTile));
    for (int64_t r = i + 1; r < kWindow; ++r) {
      const Vec x = Entry(window.inside, r * (r - 1) / 2 + i);
      bound = hn::MulAdd(x, x, bound);
    }
  }
}

// Fills past_gram, couplings, window_gram and squared_norms from the rest.
// `scratch`: 2 triangles and 8 x N entries.
HWY_NOINLINE void DescribeWindow(const WindowLayout& layout, const ChannelWindow& window,
                                 double* scratch) {
  const int64_t tiles = layout.tiles();
  double* moved = scratch;
  double* core = moved + layout.TriangleSize();
  double* image = core + layout.TriangleSize();
  ScaleRows(layout, window.transition, window.past, moved);
  LowerProduct(layout, window.future, moved, core);
  for (int64_t i = 0; i < tiles; ++i) {
    for (int64_t j = 0; j < i; ++j) GramTile<Read::kFull>(tiles, core, i, j, window.past_gram);
    GramTile<Read::kLower>(tiles, core, i, i, window.past_gram);
    for (const int64_t q : {0, 1}) {
      InputImageTile(tiles, window.future, window.input, i, q, image);
      OutputImageTile(tiles, window.past, window.output, i, q, window.couplings);
    }
  }
  for (int64_t i = 0; i < tiles; ++i) {
    for (const int64_t q : {0, 1}) CouplingTile(tiles, core, image, i, q, window.couplings);
  }
  WindowGramTile<Read::kLower>(tiles, image, 0, 0, window.window_gram);
  WindowGramTile<Read::kFull>(tiles, image, 1, 0, window.window_gram);
  WindowGramTile<Read::kLower>(tiles, image, 1, 1, window.window_gram);
  SumSquares(layout, window);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_DESCRIPTOR_INL_H_
