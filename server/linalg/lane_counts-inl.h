// The counts of 8 positions at one tolerance. Included once per Highway target.
//
// With columns [the past before a | the window's own], H_i = [X_i T_i; Z Y_i]: rows from i to b,
// then what the future behind b makes of both. N_i(tau) is the number of negative pivots of
//
//     [ I   T_i / tau               X_i / tau            ]
//     [ .   I - Y_i^T Y_i / tau^2   -Y_i^T Z / tau^2     ]
//     [ .   .                       I - Z^T Z / tau^2    ],
//
// the rows behind b being eliminated already. The last block is the same for all 8 positions and
// goes next; what is left is a node of the inertia tree with 8 positions.
#if defined(ESS_LINALG_LANE_COUNTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_COUNTS_INL_H_
#undef ESS_LINALG_LANE_COUNTS_INL_H_
#else
#define ESS_LINALG_LANE_COUNTS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/lane_tiles-inl.h"
#include "server/linalg/leaf_nodes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// LDL^T without exchanges of P = I - Z^T Z / tau^2, together with the 16 columns beside it.
class SharedElimination {
 public:
  // `scratch`: 2 tiles (tiles + 4) tiles.
  SharedElimination(const WindowLayout& layout, const ChannelWindow& window, Vec inverse_tau,
                    double* scratch)
      : tiles_(layout.tiles()),
        window_(window),
        inverse_tau_(inverse_tau),
        inverse_square_(hn::Mul(inverse_tau, inverse_tau)),
        u_(scratch),
        v_(scratch + tiles_ * (tiles_ + 4) * kTileEntries * kLanes) {}

  HWY_INLINE void Run() {
    for (int64_t row = 0; row < tiles_; ++row) {
      Pivots pivots;
      FactorDiagonal(row, pivots);
      Vec squares[kTile] = {Zero(), Zero(), Zero(), Zero()};
      for (int64_t column = row + 1; column < tiles_ + 4; ++column) {
        EliminateTile(row, column, pivots, squares);
      }
      for (int k = 0; k < kTile; ++k) {
        const Vec growth = hn::Mul(squares[k], hn::Abs(pivots.inverse[k]));
        monitor_.growth = hn::Max(monitor_.growth, growth);
      }
    }
  }

  Vec negative() const { return negative_; }
  const LeafMonitor& monitor() const { return monitor_; }

  // Subtracts tile (row, column) of the product of the 16 columns beside P; both count from them.
  template <int kColumn, Read kOutput>
  HWY_INLINE void SubtractProduct(int64_t row, int64_t column,
                                  TileSum<kColumn, kOutput>& sum) const {
    SubtractRows(tiles_, V(0, tiles_ + row), U(0, tiles_ + column), sum);
  }

 private:
  struct Pivots {
    Vec multiplier[kTile][kTile];  // [row][column], row > column.
    Vec inverse[kTile];
  };

  double* U(int64_t row, int64_t column) const { return TileAt(u_, row * (tiles_ + 4) + column); }
  double* V(int64_t row, int64_t column) const { return TileAt(v_, row * (tiles_ + 4) + column); }

  // The first `rows` tiles below each other in a column of V, transposed, times those of U.
  template <int kColumn, Read kOutput>
  HWY_INLINE void SubtractRows(int64_t rows, const double* v, const double* u,
                               TileSum<kColumn, kOutput>& sum) const {
    const int64_t stride = (tiles_ + 4) * kTileEntries * kLanes;
    for (const double* end = v + rows * stride; v != end; v += stride, u += stride) {
      sum.template Add<Read::kTransposed, Read::kFull, true>(v, u);
    }
  }

  // factor * tile less the product of the rows above; of a tile on the diagonal the upper triangle.
  template <Read kOutput, int kColumn = 0>
  HWY_INLINE void SubtractAbove(int64_t row, int64_t column, const double* tile, Read read,
                                Vec factor, Vec (&entries)[kTile][kTile]) const {
    TileSum<kColumn, kOutput> sum;
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kTileColumns; ++c) {
        sum.entry[r][c] = hn::Mul(factor, Entry(tile, IndexOf(read, r, kColumn + c)));
      }
    }
    SubtractRows(row, V(0, row), U(0, column), sum);
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kTileColumns; ++c) entries[r][kColumn + c] = sum.entry[r][c];
    }
    if constexpr (kColumn + kTileColumns < kTile) {
      SubtractAbove<kOutput, kColumn + kTileColumns>(row, column, tile, read, factor, entries);
    }
  }

  HWY_INLINE void FactorDiagonal(int64_t row, Pivots& pivots) {
    Vec a[kTile][kTile];
    SubtractAbove<Read::kLowerTransposed>(row, row, TileAt(window_.past_gram, LowerTile(row, row)),
                                          Read::kTransposed, hn::Neg(inverse_square_), a);
    const Vec one = Broadcast(1.0);
#pragma GCC unroll 4
    for (int k = 0; k < kTile; ++k) a[k][k] = hn::Add(a[k][k], one);
#pragma GCC unroll 4
    for (int k = 0; k < kTile; ++k) {
      const Vec pivot = a[k][k];
      pivots.inverse[k] = hn::Div(one, pivot);
      negative_ = GatherPivot<PivotSum::kNegative>(negative_, pivot);
      monitor_.singular = hn::Or(monitor_.singular, hn::Not(hn::Gt(hn::Abs(pivot), Zero())));
#pragma GCC unroll 4
      for (int i = k + 1; i < kTile; ++i) {
        const Vec multiplier = hn::Mul(a[k][i], pivots.inverse[k]);
        monitor_.growth = hn::Max(monitor_.growth, hn::Abs(hn::Mul(multiplier, a[k][i])));
        pivots.multiplier[i][k] = multiplier;
#pragma GCC unroll 4
        for (int c = i; c < kTile; ++c) a[i][c] = hn::NegMulAdd(multiplier, a[k][c], a[i][c]);
      }
    }
  }

  // Adds the squares of what is left of each pivot row to `squares`: with the pivot's inverse, a
  // bound of the largest |u v|, for less than each of them would cost.
  HWY_INLINE void EliminateTile(int64_t row, int64_t column, const Pivots& pivots,
                                Vec (&squares)[kTile]) {
    Vec a[kTile][kTile];
    if (column < tiles_) {
      SubtractAbove<Read::kFull>(row, column, TileAt(window_.past_gram, LowerTile(column, row)),
                                 Read::kTransposed, hn::Neg(inverse_square_), a);
    } else {
      const int64_t side = column - tiles_;
      SubtractAbove<Read::kFull>(row, column, TileAt(window_.couplings, 4 * row + side),
                                 Read::kFull, side < 2 ? inverse_tau_ : hn::Neg(inverse_square_),
                                 a);
    }
    double* u = U(row, column);
    double* v = V(row, column);
#pragma GCC unroll 4
    for (int k = 0; k < kTile; ++k) {
#pragma GCC unroll 4
      for (int c = 0; c < kTile; ++c) {
#pragma GCC unroll 4
        for (int i = k + 1; i < kTile; ++i) {
          a[i][c] = hn::NegMulAdd(pivots.multiplier[i][k], a[k][c], a[i][c]);
        }
        const Vec scaled = hn::Mul(a[k][c], pivots.inverse[k]);
        squares[k] = hn::MulAdd(a[k][c], a[k][c], squares[k]);
        SetEntry(a[k][c], u, k * kTile + c);
        SetEntry(scaled, v, k * kTile + c);
      }
    }
  }

  const int64_t tiles_;
  const ChannelWindow& window_;
  const Vec inverse_tau_;
  const Vec inverse_square_;
  double* const u_;
  double* const v_;
  Vec negative_ = Zero();
  LeafMonitor monitor_{Zero(), hn::Lt(Zero(), Zero())};
};

// What is left for the 8 positions: rows x rows, rows x columns, columns x columns, packed as
// FinishLeaf wants them.
struct WindowNode {
  Vec a[kWindow * (kWindow + 1) / 2];
  Vec b[kWindow * (kWindow - 1) / 2];
  Vec c[kWindow * (kWindow + 1) / 2];
};

enum class NodePart { kRows, kCross, kColumns };

// Tile (p, q), p >= q, of one part; kOutput: kLower on the diagonal.
template <NodePart kPart, Read kOutput, int kColumn = 0>
HWY_INLINE void NodeTile(const SharedElimination& shared, const ChannelWindow& window,
                         Vec inverse_tau, int64_t p, int64_t q, WindowNode& node) {
  const int64_t first_row = kPart == NodePart::kColumns ? 2 : 0;
  const int64_t first_column = kPart == NodePart::kRows ? 0 : 2;
  TileSum<kColumn, kOutput> sum;
  sum.Clear();
  shared.SubtractProduct(first_row + p, first_column + q, sum);
  const Vec inverse_square = hn::Mul(inverse_tau, inverse_tau);
  for (int r = 0; r < kTile; ++r) {
    for (int c = 0; c < kTileColumns; ++c) {
      const int64_t row = p * kTile + r;
      const int64_t column = q * kTile + kColumn + c;
      if (kPart == NodePart::kCross ? column >= row : column > row) continue;
      Vec value = sum.entry[r][c];
      if (kPart != NodePart::kCross && row == column) value = hn::Add(value, Broadcast(1.0));
      if (kPart == NodePart::kCross) {
        const int64_t index = row * (row - 1) / 2 + column;
        node.b[index] = hn::MulAdd(inverse_tau, Entry(window.inside, index), value);
      } else if (kPart == NodePart::kRows) {
        node.a[row * (row + 1) / 2 + column] = value;
      } else {
        const Vec gram = Entry(window.window_gram, LowerEntry(row, column));
        node.c[row * (row + 1) / 2 + column] = hn::NegMulAdd(inverse_square, gram, value);
      }
    }
  }
  if constexpr (kColumn + kTileColumns < kTile) {
    NodeTile<kPart, kOutput, kColumn + kTileColumns>(shared, window, inverse_tau, p, q, node);
  }
}

template <Read kOutput>
HWY_INLINE void NodeTiles(const SharedElimination& shared, const ChannelWindow& window,
                          Vec inverse_tau, int64_t p, int64_t q, WindowNode& node) {
  NodeTile<NodePart::kRows, kOutput>(shared, window, inverse_tau, p, q, node);
  NodeTile<NodePart::kCross, kOutput>(shared, window, inverse_tau, p, q, node);
  NodeTile<NodePart::kColumns, kOutput>(shared, window, inverse_tau, p, q, node);
}

HWY_NOINLINE void FinishWindow(const WindowNode& node, Vec before, LeafMonitor& monitor,
                               Vec* gathered) {
  FinishLeaf<kWindow, PivotSum::kNegative>(node.a, node.b, node.c, before, monitor, gathered);
}

// counts[t] of the 8 positions, and a bound of the largest |u v| of the elimination in units of
// tau, at most 4 (tiles + 4) times as large: infinity where a pivot was no number or 0.
HWY_NOINLINE void CountWindow(const WindowLayout& layout, const ChannelWindow& window,
                              const double* inverse_tau, double* scratch, double* counts,
                              double* growth) {
  const Vec inverse = Entry(inverse_tau, 0);
  SharedElimination shared(layout, window, inverse, scratch);
  shared.Run();
  WindowNode node;
  NodeTiles<Read::kLower>(shared, window, inverse, 0, 0, node);
  NodeTiles<Read::kFull>(shared, window, inverse, 1, 0, node);
  NodeTiles<Read::kLower>(shared, window, inverse, 1, 1, node);
  Vec gathered[kWindow];
  LeafMonitor monitor = shared.monitor();
  FinishWindow(node, shared.negative(), monitor, gathered);
  for (int t = 0; t < kWindow; ++t) SetEntry(gathered[t], counts, t);
  const Vec infinity = Broadcast(std::numeric_limits<double>::infinity());
  SetEntry(hn::IfThenElse(monitor.singular, infinity, monitor.growth), growth, 0);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_COUNTS_INL_H_
